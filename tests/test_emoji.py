"""The emoji example: three packages made up here -> a folder -> a judge of pictures."""

import importlib
import io
import json
import sys
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPO
from lpips_files import weights_of
from PIL import Image

from t2i_jax.errors import UserError
from t2i_jax.models import lpips

sys.path.insert(0, str(REPO / "examples" / "emoji"))
make, judge, prompts, attributes = map(importlib.import_module, ("make", "judge", "prompts", "attributes"))
sys.path.pop(0)

TONES = ["1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"]
MESSAGES = {
    "groups": [{"key": "smileys", "order": 0}, {"key": "people", "order": 1}],
    "subgroups": [{"key": "heart", "order": 14}, {"key": "person-role", "order": 25}],
}


def emoji(label, hexcode, *, group=0, subgroup=14, tags=(), toned=False):
    skins = [
        {"label": f"{label}: {tone} skin tone", "hexcode": f"{hexcode}-{code}", "tone": i + 1}
        | {"group": group, "subgroup": subgroup}
        for i, (tone, code) in enumerate(zip(make.TONES, TONES, strict=True))
    ]
    entry = {"label": label, "hexcode": hexcode, "group": group, "subgroup": subgroup, "tags": list(tags)}
    return entry | ({"skins": skins} if toned else {})


DATA = [
    emoji("orange heart", "1F9E1", tags=["heart", "love", "orange"]),
    emoji("red apple", "1F34E", tags=["diet", "fruit", "health", "ripe"]),
    emoji("firefighter", "1F9D1-200D-1F692", group=1, subgroup=25, tags=["fire"], toned=True),
    emoji("woman firefighter", "1F469-200D-1F692", group=1, subgroup=25, toned=True),
    emoji("flag: Norway", "1F1F3-1F1F4"),
    emoji("Swiss cross", "271D-FE0F"),
]


def picture(seed, mode="RGBA"):
    """Blocks of colour, the upper left quarter transparent."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 4), np.uint8)
    blocks[..., 3] = 255
    blocks[:2, :2, 3] = 0
    return Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8))).convert(mode)


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    names = {"data": DATA, "messages": MESSAGES}
    pack(folder / make.NAMES, {f"en/{name}.json": json.dumps(x).encode() for name, x in names.items()})
    codes = [entry["hexcode"] for base in DATA for entry in (base, *base.get("skins", []))]
    for number, (design, file) in enumerate(make.DESIGNS.items()):
        members = {f"img/{design}/sheets/64.png": b"none of them"}
        for i, code in enumerate(codes):
            if (design, code) != ("twitter", "1F34E"):
                file_ = io.BytesIO()
                picture(100 * number + i).save(file_, "png")
                members[f"img/{design}/64/{code.lower()}.png"] = file_.getvalue()
        pack(folder / file, members)
    return folder


def run(module, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, argv)])
    module.main()


@pytest.fixture(scope="module")
def made(packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji") / "out"
    with pytest.MonkeyPatch.context() as patch:
        run(make, patch, "--packages", packages, "--out", out)
    return out


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_picture_has_its_captions_and_lies_in_one_split(made):
    rows = {split: lines(made / split / "captions.jsonl") for split in ("train", "heldout")}
    for split, entries in rows.items():
        assert {row["file"] for row in entries} == {path.name for path in (made / split).glob("*.png")}
    captions = {row["file"]: row["captions"] for entries in rows.values() for row in entries}
    assert len(captions) == 2 * 16 - 1  # one design has no apple
    assert captions["google-1f34e.png"] == ["red apple", "red apple, diet", "red apple, fruit", "red apple, health"]
    dark = "firefighter: dark skin tone"
    assert captions["twitter-1f9d1-200d-1f692-1f3ff.png"] == [dark, "firefighter with dark skin", f"{dark}, fire"]
    assert captions["google-1f9e1.png"] == ["orange heart", "orange heart, love"]
    assert captions["google-1f1f3-1f1f4.png"] == ["flag: Norway", "flag of Norway"]
    assert captions["google-271d.png"] == ["Swiss cross"]


def test_pictures_are_composed_on_white(made):
    image = Image.open(made / "train" / "google-1f34e.png")
    assert (image.mode, image.size) == ("RGB", (64, 64))
    pixels, original = np.asarray(image), np.asarray(picture(1))
    assert (pixels[:32, :32] == 255).all()
    np.testing.assert_array_equal(pixels[32:], original[32:, :, :3])
    for mode in ("P", "LA"):
        file = io.BytesIO()
        picture(0).convert(mode).save(file, "png")
        assert make.on_white(file.getvalue()).mode == "RGB"


def test_whole_combinations_are_held_out(made, monkeypatch):
    held = {row["label"]: row["held_out"] for row in lines(made / "index.jsonl") if row["held_out"]}
    assert held == {"orange heart": "colour x shape"}
    monkeypatch.setitem(make.ONE_IN, "activity", 1)  # of every activity one tone
    man = emoji("man firefighter", "1F468-200D-1F692", group=1, subgroup=25, toned=True)
    rows = make.read_emoji(json.dumps([*DATA, man]).encode(), json.dumps(MESSAGES).encode())
    tones = {row["base"]: row["tone"] for row in rows if row["held_out"] == "skin tone x activity"}
    assert tones == {"firefighter": 5, "woman firefighter": 5, "man firefighter": 5}  # the same whoever does it


def test_names_are_held_out_whose_words_are_trained_on(monkeypatch):
    monkeypatch.setitem(make.ONE_IN, "name", 1)
    labels = ["red apple", "green apple", "red book", "green book", "red star", "flag: red apple"]
    rows = make.read_emoji(
        json.dumps([emoji(x, f"{i}") for i, x in enumerate(labels)]).encode(), b'{"groups": [], "subgroups": []}'
    )
    held = [row["base"] for row in rows if row["held_out"] == "name of known words"]
    trained = set.union(*(make.words(row["base"]) for row in rows if not row["held_out"]))
    assert held
    assert "red star" not in held
    assert all(make.words(name) <= trained for name in held)


def test_it_writes_the_same_bytes_again(packages, made, tmp_path, monkeypatch, read_only):
    run(make, monkeypatch, "--packages", packages, "--out", tmp_path / "again")
    first, again = (
        {path.relative_to(f): x for path, x in read_only(f).items()} for f in (made, tmp_path / "again")
    )
    assert first == again


def test_a_package_that_is_missing_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"npm pack emojibase-data@17\.0\.0"):
        run(make, monkeypatch, "--packages", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the judge


def test_ranks_count_the_emoji_that_are_nearer():
    to_bank = np.array([[0.3, 0.2, 0.1, 0.9], [0.3, 0.2, 0.1, 0.9], [0.1, 0.5, 0.1, 0.1]], np.float32)
    owners = np.array([0, 1, 0, 2])
    np.testing.assert_array_equal(judge.ranks(to_bank, owners, [{0}, {1, 2}, {1}]), [0, 1, 2])
    assert judge.ranks(to_bank[2:], owners, [{2}])[0] == 0  # the same picture under another name is right


@pytest.fixture(scope="module")
def weights():
    return weights_of("alexnet")[0]


def test_distances_are_lpips(weights):
    images = [picture(i, "RGB") for i in range(3)]
    vectors = judge.embed(weights, images, 64)
    pixels = np.stack([np.asarray(image, np.float32) / 255 for image in images])
    pairs = (jnp.array(x) for x in (np.repeat(pixels, 3, axis=0), np.tile(pixels, (3, 1, 1, 1))))
    expected = jax.jit(lpips.distance)(weights, *pairs)
    np.testing.assert_allclose(judge.distances(vectors, vectors).ravel(), expected, atol=1e-4)


def test_drawn_pictures_are_judged_without_their_captions(made, weights, tmp_path):
    index = make.read_index(made)
    images = [Image.open(made / entry["file"]) for entry in index]
    right, wrong = (
        next(i for i, e in enumerate(index) if e["label"] == name) for name in ("red apple", "flag: Norway")
    )
    for name, number in (("a.png", right), ("b.png", wrong)):
        images[number].save(tmp_path / name)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "Red apple, fruit", "files": ["a.png", "b.png"]}))
    unseen = {"scarlet fruit": ["red apple"]}
    table = judge.judge(index, images, weights, tmp_path, unseen)
    assert table.splitlines()[1].split()[:3] == ["all", "2", "0.500"]
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "scarlet fruit", "files": ["a.png"]}))
    assert judge.judge(index, images, weights, tmp_path, unseen).splitlines()[1].split()[:3] == [
        "all",
        "1",
        "1.000",
    ]
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "a poem", "files": ["a.png"]}))
    with pytest.raises(UserError, match="'a poem' is no caption"):
        judge.judge(index, images, weights, tmp_path, unseen)


def test_copies_of_training_pictures_are_told_from_new_ones(made, weights):
    index = make.read_index(made)
    images = [Image.open(made / entry["file"]) for entry in index]
    bank = judge.embed(weights, images, 64)
    trained = np.array([not entry["held_out"] for entry in index])
    new = judge.embed(weights, [picture(1000 + i, "RGB") for i in range(8)], 64)
    for queries, share in ((bank[trained], "1.000"), (new, "0.000")):
        line = judge.copies(queries, index, images, bank, weights, 64)
        assert line == f"nearly a training picture: {share} of those drawn, 0.000 of the real ones held out"


def test_a_skin_tone_is_measured_by_the_pixels_that_show_it():
    values = np.linspace(0.2, 0.9, 5)
    pictures = np.ones((10, 8, 8, 3), np.float32)  # one design shows it on the left, one on the right
    index = []
    for number, (design, tone) in enumerate((d, t) for d in ("a", "b") for t in range(5)):
        pictures[number, :, slice(0, 4) if design == "a" else slice(4, 8)] = values[tone]
        index.append({"design": design, "tone": tone + 1, "base": "cook", "label": f"cook: tone {tone}"})
    for number, entry in enumerate(index):
        drawn = np.clip(pictures[number] + 0.05, 0, 1)
        assert [attributes.is_right(drawn, asked, index, pictures) for asked in index[:5]] == [
            asked["tone"] == entry["tone"] for asked in index[:5]
        ]
    covered = pictures.copy()
    covered[5:] = 0.5  # a face that the second design does not show
    assert [attributes.is_right(covered[2], asked, index, covered) for asked in index[:5]] == [0, 0, 1, 0, 0]
    plain = {"tone": None, "base": "broken heart", "label": "broken heart"}
    assert attributes.family(plain) is None
    assert attributes.family(plain | {"label": "red heart"}) == "heart"


def test_prompts_are_names_by_what_training_saw_of_them(made):
    index = make.read_index(made)
    found = prompts.lists(index, {"crimson apple": ["red apple"]})
    assert {"red apple", "flag: Norway"} < set(found["trained"])
    assert "orange heart" not in found["trained"]
    assert found["colour_x_shape"] == ["orange heart"]
    assert found["unseen"] == ["crimson apple"]
    with pytest.raises(UserError, match="red apple: all their words were trained on"):
        prompts.lists(index, {"red apple": ["red apple"]})


def test_a_calibration_has_a_table_for_each_distortion(made, weights):
    index = make.read_index(made)
    images = [Image.open(made / entry["file"]) for entry in index]
    tables = judge.calibrate(index, images, weights, 64, None).split("\n\n")
    assert [text.partition("\n")[0] for text in tables] == [
        "JPEG, quality 10",
        "blurred, 1 pixel of standard deviation",
        "the other design",
    ]
    rows = {line[:34].strip(): line[34:].split() for line in tables[0].splitlines()[2:]}
    assert int(rows["all"][0]) == int(rows["google"][0]) + int(rows["twitter"][0]) == len(index)
    assert float(rows["all"][1]) > 0.9


def test_what_ignores_a_skin_tone_is_never_the_nearest():
    index = [
        {"design": "a", "tone": tone, "base": "cook", "label": f"cook: tone {tone}", "emoji": tone - 1}
        | {"held_out": "skin tone x activity" if tone == 3 else ""}
        for tone in range(1, 6)
    ]
    bank = np.eye(5, dtype=np.float32)
    (text,) = judge.half_right(index, bank, np.arange(5))
    assert text.splitlines()[2].split() == ["all", "1", "0.000", "1.000"]  # one of five is among the nearest five
    assert judge.half_right(index[:2], bank[:2], np.arange(2)) == []
