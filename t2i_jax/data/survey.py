"""What a folder of one's own pictures holds, in a table and in pictures, before anything is prepared of it."""

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers.pre_tokenizers import BertPreTokenizer

from t2i_jax import progress
from t2i_jax.data import entries, images, skipped
from t2i_jax.errors import UserError
from t2i_jax.ranges import sides

SHOWN = 24  # pictures of the contact sheet
CAPTION = 80  # letters of a caption there
FEW = 100  # pictures, of which each counts


class Survey(NamedTuple):
    """What was found.

    Attributes:
      text: the table.
      numbers: the same, for programs.
      pictures: uint8 [n, 1, H, W, 3], up to SHOWN, as training would get them.
      captions: one of each, cut.
    """

    text: str
    numbers: dict
    pictures: np.ndarray
    captions: list[str]


class _Look(NamedTuple):
    size: tuple[int, int]
    format: str
    mode: str
    crop: np.ndarray


def survey(
    path: str | Path, *, image_size: int | tuple[int, int], background: str, validation_share: float
) -> Survey:
    """Read every picture and caption.

    Args:
      path: see `entries.entries`.
      image_size, background, validation_share: see `sources.folder.Options`.

    Raises:
      UserError: no picture can be used.
    """
    skips: skipped.Names = {}
    pictures = entries.pictures_of(path, skips)

    def look(content, picture):
        image = images.decode(content, background)
        with images.open_image(content) as opened:
            return _Look(image.size, opened.format, opened.mode, images.crop(image, image_size))

    looks, shown, every = {}, {}, math.ceil(len(pictures) / SHOWN)
    bar = progress.bar(entries.map_pictures(path, pictures, look), "looking", len(pictures))
    for name, seen in bar:
        if isinstance(seen, images.Unreadable):
            skipped.add(skips, str(seen), name)
            continue
        if len(looks) % every == 0 and len(shown) < SHOWN:
            shown[name] = seen.crop
        looks[name] = seen._replace(crop=None)
    if not looks:
        raise UserError(f"{path} has no picture that can be used: {skipped.in_words(skips)}")
    used = [pictures[name] for name in looks]
    numbers = _numbers(used, list(looks.values()), skips, image_size, validation_share)
    return Survey(
        "\n".join(_table(path, numbers, image_size, validation_share)),
        numbers,
        np.stack(list(shown.values()))[:, None],
        [textwrap.shorten(pictures[name].captions[0], CAPTION, placeholder=" ...") for name in shown],
    )


def _numbers(pictures, looks, skips, image_size, share: float) -> dict:
    """What there is, for programs."""
    h, w = sides(image_size)
    captions = [caption for picture in pictures for caption in picture.captions]
    held_out = sum(picture.is_held_out(share) for picture in pictures)
    return {
        "pictures": len(pictures),
        "width": _spread([look.size[0] for look in looks]),
        "height": _spread([look.size[1] for look in looks]),
        "cropped": sum(width * h != height * w for width, height in (look.size for look in looks)),
        "too_small": sum(width < w or height < h for width, height in (look.size for look in looks)),
        "formats": dict(Counter(look.format for look in looks).most_common()),
        "modes": dict(Counter(look.mode for look in looks).most_common()),
        "captions": _spread([len(picture.captions) for picture in pictures]),
        "different_captions": len(set(captions)),
        "words": _spread([len(BertPreTokenizer().pre_tokenize_str(caption)) for caption in captions]),
        "duplicates": [list(picture.names) for picture in pictures if len(picture.names) > 1],
        "splits": {"train": len(pictures) - held_out, "validation": held_out},
        "skipped": skips,
    }


def _table(path, found: dict, image_size, share: float):
    height, width = sides(image_size)
    shape = f"{height}" if height == width else f"{height} x {width}"
    yield f"{found['pictures']:,} pictures in {path}"
    yield f"  width       {_range(found['width'])} pixels"
    yield f"  height      {_range(found['height'])} pixels"
    if cut := found["cropped"]:
        used = "square: their central square" if height == width else f"of the shape {shape}: their central part"
        yield f"              {cut:,} are not {used} is used"
    if small := found["too_small"]:
        yield f"              {small:,} are smaller than {shape} pixels (config.data.image_size): enlarged"
    yield f"  formats     {_counts(found['formats'])}"
    yield f"  modes       {_counts(found['modes'])}"
    yield f"  captions    {_range(found['captions'])} a picture, {found['different_captions']:,} different ones"
    yield f"  words       {_range(found['words'])} a caption; config.data.text_len counts their pieces, and 2 more"
    if again := found["duplicates"]:
        names = "; ".join(" = ".join(map(skipped.printable, names)) for names in again[: skipped.NAMED])
        more = "; ..." if len(again) > skipped.NAMED else ""
        yield f"  duplicates  {sum(map(len, again)) - len(again):,} left out, their captions kept ({names}{more})"
    train, held_out = found["splits"].values()
    advice = _advice(found["pictures"], held_out, share)
    yield f"  splits      {train:,} train, {held_out:,} validation{advice}"
    yield f"  skipped     {skipped.in_words(found['skipped']) or 'nothing'}"


def _advice(count: int, held_out: int, share: float) -> str:
    if held_out in (0, count):
        return "; all serve for both"
    if count < FEW and share:
        return "; so few: config.data.validation_share=0 trains on all"
    return ""


def _spread(numbers: Sequence[int]) -> dict[str, int]:
    return {"least": min(numbers), "most": max(numbers), "median": statistics.median_low(numbers)}


def _range(spread: dict[str, int]) -> str:
    return "{least:,} to {most:,} (median {median:,})".format(**spread)


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.items())
