"""Emoji as a folder of captioned pictures: names and keywords in English, two designs, five skin tones.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 emojibase-data@17.0.0
    python examples/emoji/make.py --packages . --out data/emoji

It reads the three packages where they lie, unpacks nothing and fetches nothing. It writes, the same bytes each
time,

    train/captions.jsonl, heldout/captions.jsonl    {"file": ..., "captions": [...]} a line
    train/*.png, heldout/*.png                      64 x 64 pixels on white
    index.jsonl                                     what each picture is, for `judge.py`
"""

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
from pathlib import Path

from PIL import Image

from t2i_jax import files
from t2i_jax.errors import UserError

NAMES = "emojibase-data-17.0.0.tgz"
DESIGNS = {"google": "emoji-datasource-google-16.0.0.tgz", "twitter": "emoji-datasource-twitter-16.0.0.tgz"}
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
KEYWORDS = 3  # captions with a keyword, at most

# Held out. Each colour is trained with other shapes, and each shape in other colours.
COLOURED = {
    *("orange heart", "brown heart", "purple circle", "yellow circle", "green square", "red square", "blue book"),
}
ACTIVITIES = ("person-role", "person-activity", "person-sport")
ONE_IN = {"activity": 2, "name": 8}  # activities of which one skin tone is held out; names of known words


def digest(text: str) -> int:
    """A number of a text, the same on every machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def activity(label: str) -> str:
    """What somebody does, whoever it is and whatever way they face: "man walking: facing right" is "walking"."""
    return re.sub(r"^(man|woman|person|men|women|people) ", "", label.partition(":")[0])


def words(label: str) -> set[str]:
    """Lower-case words of a label."""
    return set(re.findall(r"[^\W_]+", label.lower()))


def read_emoji(data: bytes, messages: bytes) -> list[dict]:
    """Every emoji and each of its skin tones: `hexcode`, `label`, `base`, `group`, `tone`, `captions`, `held_out`.

    Args:
      data: emojibase's `en/data.json`.
      messages: its `en/messages.json`, with the names of groups.
    """
    titles = json.loads(messages)
    groups, subgroups = ({x["order"]: x["key"] for x in titles[name]} for name in ("groups", "subgroups"))
    found = []
    for base in json.loads(data):
        for entry in (base, *base.get("skins", [])):
            found.append(
                {
                    "hexcode": entry["hexcode"].lower().replace("-fe0f", ""),
                    "label": entry["label"],
                    "base": base["label"],
                    "group": groups.get(entry.get("group"), "none"),
                    "subgroup": subgroups.get(entry.get("subgroup"), "none"),
                    "tone": entry.get("tone"),  # of a couple a list of two
                    "captions": captions(entry["label"], base, entry.get("tone")),
                }
            )
    hold_out(found)
    return found


def captions(label: str, base: dict, tone) -> list[str]:
    """The name, the name in other words where there are any, and each of these with a keyword in turn."""
    names = [label]
    if isinstance(tone, int):
        names.append(f"{base['label']} with {TONES[tone - 1]} skin")
    if label.startswith("flag: "):
        names.append(f"flag of {label.removeprefix('flag: ')}")
    keywords = [tag for tag in base.get("tags", []) if not words(tag) <= words(label)][:KEYWORDS]
    return names + [f"{names[i % len(names)]}, {keyword}" for i, keyword in enumerate(keywords)]


def hold_out(emoji: list[dict]) -> None:
    """Set `held_out` of each: the rule by which it is not trained on, or "".

    Whole combinations: one skin tone of some activities, whoever does them; some colours of hearts, circles,
    squares and books; and names whose words are all in other names. Flags are trained on.
    """
    for entry in emoji:
        entry["held_out"] = ""
        chance = digest(activity(entry["base"]))
        if entry["base"] in COLOURED:
            entry["held_out"] = "colour x shape"
        elif entry["subgroup"] in ACTIVITIES and isinstance(entry["tone"], int):
            tone = 1 + chance // ONE_IN["activity"] % len(TONES)
            if chance % ONE_IN["activity"] == 0 and entry["tone"] == tone:
                entry["held_out"] = "skin tone x activity"
    names = {}  # of what is trained on, where each word occurs
    trained = {entry["base"] for entry in emoji if not entry["held_out"]}
    for base in trained:
        for word in words(base):
            names.setdefault(word, set()).add(base)
    plain = [entry for entry in emoji if not entry["held_out"] and entry["base"] == entry["label"]]
    for entry in sorted(plain, key=lambda entry: digest(entry["label"])):
        base, own = entry["base"], words(entry["base"])
        known = len(own) > 1 and all(names[word] - {base} for word in own)
        toned = sum(other["base"] == base for other in emoji) > 1
        if known and not toned and entry["group"] != "flags" and digest(f"name {base}") % ONE_IN["name"] == 0:
            entry["held_out"] = "name of known words"
            for word in own:
                names[word].discard(base)


def on_white(picture: bytes) -> Image.Image:
    """A picture file composed on white."""
    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def read_members(archive: Path, wanted) -> dict[str, bytes]:
    """The files of a package whose path `wanted` maps to a name, by that name.

    Raises:
      UserError: there is no such package, or it is damaged.
    """
    try:
        with tarfile.open(archive) as package:
            named = ((wanted(member.name), member) for member in package if member.isfile())
            return {name: package.extractfile(member).read() for name, member in named if name}
    except (OSError, EOFError, tarfile.TarError) as error:
        name, version = archive.name.removesuffix(".tgz").rsplit("-", 1)
        raise UserError(f"{archive} cannot be read ({error}); fetch it: npm pack {name}@{version}") from None


def write(folder: Path, emoji: list[dict], pictures: dict[str, dict[str, bytes]]) -> dict[str, int]:
    """Write pictures and captions; the numbers of pictures, by split.

    Args:
      folder: to write into.
      emoji: of `read_emoji`.
      pictures: files by design and hexcode; an emoji without one is left out.
    """
    lines, index = {"train": [], "heldout": []}, []
    for split in lines:
        (folder / split).mkdir()
    for entry in emoji:
        split = "heldout" if entry["held_out"] else "train"
        for design in sorted(pictures):
            if (picture := pictures[design].get(entry["hexcode"])) is None:
                continue
            name = f"{design}-{entry['hexcode']}.png"
            on_white(picture).save(folder / split / name)
            lines[split].append({"file": name, "captions": entry["captions"]})
            index.append({"file": f"{split}/{name}", "design": design, **entry})
    for name, rows in (*((f"{split}/captions", rows) for split, rows in lines.items()), ("index", index)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {split: len(rows) for split, rows in lines.items()}


def read_index(data: Path) -> list[dict]:
    """What this program wrote of each picture; `emoji`, a number from 0, is added.

    Raises:
      UserError: there is no such file.
    """
    try:
        index = [json.loads(line) for line in (data / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{data / 'index.jsonl'} cannot be read ({error}); make it with make.py") from None
    numbers = {code: number for number, code in enumerate(dict.fromkeys(entry["hexcode"] for entry in index))}
    return [{**entry, "emoji": numbers[entry["hexcode"]]} for entry in index]


def main() -> None:
    """Read the packages and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the three .tgz of npm pack")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; what is there is replaced")
    args = parser.parse_args()
    try:
        names = read_members(args.packages / NAMES, {f"package/en/{x}.json": x for x in ("data", "messages")}.get)
        if len(names) < 2:
            raise UserError(f"{args.packages / NAMES} lacks names in English; fetch it again")
        if args.out.exists() and not (args.out / "index.jsonl").exists():
            raise UserError(f"{args.out} was not made by this program, which would replace it; name another --out")
        pictures = {}
        for design, package in DESIGNS.items():
            path = re.compile(rf"package/img/{design}/64/(.+)\.png")

            def hexcode(member, path=path):
                match = path.fullmatch(member)
                return match and match[1].lower().replace("-fe0f", "")

            pictures[design] = read_members(args.packages / package, hexcode)
        with files.replacing(args.out) as folder:
            counts = write(folder, read_emoji(names["data"], names["messages"]), pictures)
    except UserError as error:
        sys.exit(f"{error}")
    print(f"{args.out}: {counts['train']} pictures to train on, {counts['heldout']} held out")


if __name__ == "__main__":
    main()
