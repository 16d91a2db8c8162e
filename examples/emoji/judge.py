"""Which emoji does a picture look like? Nearest real pictures by features of AlexNet or VGG16, blind to captions.

    python examples/emoji/judge.py --data data/emoji --lpips-weights weights/alexnet --calibrate
    python examples/emoji/judge.py --data data/emoji --lpips-weights weights/alexnet --images samples

The first line says how good the judge itself is: it judges real pictures after JPEG, blurred, after a tokenizer
(`--tokenizer RUN`), and in the other design. The second judges what `t2i sample --prompts-file ... --out samples`
wrote, each picture against the emoji that have its prompt as a caption.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import attributes
import jax
import numpy as np
from make import read_index
from PIL import Image, ImageFilter

import t2i_jax
from t2i_jax.errors import UserError
from t2i_jax.models import lpips
from t2i_jax.pipelines.batches import in_batches

SIDE = 64  # pixels at which pictures are compared
QUERIES = 500  # real pictures that a calibration judges


def embed(weights: dict, images: list[Image.Image], size: int) -> np.ndarray:
    """Vectors [B, D] whose squared distances are LPIPS, of pictures that are shrunk to `size` pixels first."""
    small = (image.resize((size, size), Image.BICUBIC) for image in images)
    return in_batches(jax.jit(lambda x: lpips.embedding(weights, x)), attributes.pixels(small, SIDE))


def distances(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """LPIPS [B, M] of every query to every picture of the bank, from their vectors."""
    squares = (np.sum(x**2, axis=1, dtype=np.float32) for x in (queries, bank))
    return np.add.outer(*squares) - 2 * queries @ bank.T


def ranks(to_bank: np.ndarray, owners: np.ndarray, asked: list[set[int]]) -> np.ndarray:
    """How many emoji are nearer to each query than the nearest of those asked for; 0 is right.

    Args:
      to_bank: distances [B, M].
      owners: [M], the emoji of each picture of the bank, from 0.
      asked: emoji that are right, by query.
    """
    to_emoji = np.full((len(to_bank), owners.max() + 1), np.inf, np.float32)
    np.minimum.at(to_emoji.T, owners, to_bank.T)
    own = [min(row[list(right)]) for row, right in zip(to_emoji, asked, strict=True)]
    return np.sum(to_emoji < np.array(own)[:, None], axis=1)


def table(rank: np.ndarray, kinds: dict[str, list[str]]) -> str:
    """Top-1 and top-5 of all queries, and of those of each value of each kind."""
    lines = [f"{'':34} pictures   top-1   top-5"]
    parts = {"all": np.ones(len(rank), bool)}
    for values in kinds.values():
        values = np.array(values)
        parts |= {str(value): values == value for value in sorted(set(values)) if value}
    for name, own in parts.items():
        lines.append(f"{name:34} {own.sum():8} {np.mean(rank[own] < 1):7.3f} {np.mean(rank[own] < 5):7.3f}")
    return "\n".join(lines)


def jpeg(image: Image.Image) -> Image.Image:
    """A picture after JPEG of quality 10."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=10)
    return Image.open(file)


def reconstructed(run: str, images: list[Image.Image]) -> list[Image.Image]:
    """Pictures after the tokenizer of a run."""
    tokenizer = t2i_jax.load(run)
    height, width, _ = tokenizer.shape
    pixels = np.stack([np.asarray(image.resize((width, height), Image.BICUBIC)) for image in images])
    back = tokenizer.detokenize(tokenizer.tokenize(pixels))
    return [Image.fromarray(np.uint8(np.round(255 * image))) for image in back]


def calibrate(index, images, weights, size, tokenizer, seed=0) -> str:
    """Tables of how often the judge knows real pictures again, by what was done to them."""
    bank, owners = embed(weights, images, size), np.array([entry["emoji"] for entry in index])
    chosen = np.random.default_rng(seed).permutation(len(index))[:QUERIES]
    entries, real = [index[i] for i in chosen], [images[i].resize((size, size), Image.BICUBIC) for i in chosen]
    asked = [{entry["emoji"]} for entry in entries]
    kinds = {kind: [entry[kind] for entry in entries] for kind in ("design", "group")}
    changed = {"JPEG, quality 10": [jpeg(image) for image in real]}
    changed["blurred, 1 pixel of standard deviation"] = [x.filter(ImageFilter.GaussianBlur(1)) for x in real]
    if tokenizer:
        changed[f"through {tokenizer}"] = reconstructed(tokenizer, real)
    found = {name: distances(embed(weights, pictures, size), bank) for name, pictures in changed.items()}
    designs = np.array([entry["design"] for entry in index])
    other = distances(bank[chosen], bank)
    other[np.array(kinds["design"])[:, None] == designs] = np.inf
    found["the other design"] = other
    tables = [f"{name}\n{table(ranks(d, owners, asked), kinds)}" for name, d in found.items()]
    return "\n\n".join([*tables, *half_right(index, bank, owners)])


def half_right(index: list[dict], bank: np.ndarray, owners: np.ndarray, seed: int = 0) -> list[str]:
    """The table of what ignores one of two words: for each emoji held out one of another tone or colour."""
    rng, held_out, others = np.random.default_rng(seed), [], []
    for entry in index:
        if entry["held_out"] and attributes.family(entry):
            alike = [i for i in attributes.relatives(index, entry) if index[i]["design"] == entry["design"]]
            alike = [i for i in alike if not index[i]["held_out"]]
            if alike:
                held_out.append(entry)
                others.append(rng.choice(alike))
    if not held_out:
        return []
    rank = ranks(distances(bank[others], bank), owners, [{entry["emoji"]} for entry in held_out])
    kinds = {"held_out": [entry["held_out"] for entry in held_out]}
    return [f"another skin tone or colour than that held out\n{table(rank, kinds)}"]


def asked_for(index: list[dict], unseen: dict[str, list[str]]) -> dict[str, list[int]]:
    """Numbers of the pictures that are right, by prompt in lower case."""
    found, of_label = {}, {}
    for number, entry in enumerate(index):
        of_label.setdefault(entry["label"], []).append(number)
        for caption in entry["captions"]:
            found.setdefault(caption.lower(), []).append(number)
    for prompt, names in unseen.items():
        found.setdefault(prompt.lower(), [number for name in names for number in of_label.get(name, [])])
    return found


def read_drawn(folder: Path) -> list[tuple[str, Image.Image]]:
    """Prompts and pictures of a folder that `t2i sample` wrote.

    Raises:
      UserError: it cannot be read.
    """
    try:
        lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [(entry["prompt"], entry["files"]) for entry in map(json.loads, lines)]
        drawn = [(prompt, Image.open(folder / name).convert("RGB")) for prompt, names in entries for name in names]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no pictures of t2i sample --prompts-file ({error})") from None
    if not drawn:
        raise UserError(f"{folder}/prompts.jsonl names no picture; draw some with t2i sample --prompts-file")
    return drawn


def copies(queries: np.ndarray, index: list[dict], images: list, bank: np.ndarray, weights, size: int) -> str:
    """The share of drawn pictures that are a training picture, beside that of real pictures held out.

    A picture counts as one that is as near to it as 95% of training pictures are to themselves blurred by 1 pixel.
    """
    held_out = np.array([bool(entry["held_out"]) for entry in index])
    chosen = np.flatnonzero(~held_out)[:: max(1, (~held_out).sum() // QUERIES)]
    blurred = [images[i].resize((size, size), Image.BICUBIC).filter(ImageFilter.GaussianBlur(1)) for i in chosen]
    limit = np.quantile(np.sum((embed(weights, blurred, size) - bank[chosen]) ** 2, axis=1), 0.95)
    shares = (np.mean(distances(x, bank[~held_out]).min(1) < limit) for x in (queries, bank[held_out]))
    return "nearly a training picture: {:.3f} of those drawn, {:.3f} of the real ones held out".format(*shares)


def judge(index, images, weights, folder: Path, unseen: dict[str, list[str]]) -> str:
    """The table of pictures that `t2i sample` wrote into a folder.

    Raises:
      UserError: they cannot be read, or a prompt is neither a caption of an emoji nor one of `unseen`.
    """
    right, asked = asked_for(index, unseen), []
    prompts, drawn = zip(*read_drawn(folder), strict=True)
    for prompt in prompts:
        if not right.get(prompt.lower()):
            raise UserError(f"{prompt!r} is no caption in {folder}'s data; ask for emoji by theirs")
        asked.append(right[prompt.lower()])
    size = drawn[0].width
    queries, bank = embed(weights, drawn, size), embed(weights, images, size)
    to_bank = distances(queries, bank)
    rank = ranks(
        to_bank, np.array([x["emoji"] for x in index]), [{index[i]["emoji"] for i in own} for own in asked]
    )
    kinds = {kind: [index[own[0]][kind] for own in asked] for kind in ("group", "held_out")}
    kinds["nearest design"] = [f"drawn like {index[i]['design']}" for i in to_bank.argmin(1)]
    lines = [table(rank, kinds), copies(queries, index, images, bank, weights, size)]
    pictures = attributes.pixels(images, size)
    shown = [
        attributes.is_right(picture, index[own[0]], index, pictures)
        for picture, own in zip(attributes.pixels(drawn, size), asked, strict=True)
        if attributes.family(index[own[0]])
    ]
    if shown:
        lines.append(f"skin tone or colour right by its pixels: {np.mean(shown):.3f} of {len(shown)}")
    return "\n".join(lines)


def main() -> None:
    """Judge, or calibrate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="what make.py wrote")
    parser.add_argument("--lpips-weights", required=True, help="what t2i convert lpips wrote")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--images", type=Path, help="what t2i sample --prompts-file wrote")
    task.add_argument("--calibrate", action="store_true", help="judge real pictures")
    parser.add_argument("--tokenizer", help="run of a tokenizer, for the calibration")
    parser.add_argument("--size", type=int, default=32, help="pixels a side of the calibration's pictures")
    args = parser.parse_args()
    try:
        index, weights = read_index(args.data), lpips.load(args.lpips_weights)
        images = [Image.open(args.data / entry["file"]).convert("RGB") for entry in index]
        if args.calibrate:
            print(calibrate(index, images, weights, args.size, args.tokenizer))
        else:
            unseen = json.loads(Path(__file__).with_name("unseen.json").read_text(encoding="utf-8"))
            print(judge(index, images, weights, args.images, unseen))
    except UserError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
