"""Skin tone and colour of a drawn emoji, measured by its pixels.

Of the pictures of one emoji in all skin tones (or of a heart, circle, square or book in all colours) the pixels
that differ between them show the attribute. A drawn picture has the attribute of the one whose mean colour over
these pixels is nearest to its own, in the design that fits best.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey", "pink"}
SHAPES = {"heart", "circle", "square", "book"}
DIFFERS = 0.15  # range of a pixel's value between pictures, of 1, from which it shows the attribute


def pixels(images: Iterable[Image.Image], size: int) -> np.ndarray:
    """Pictures scaled to `size` pixels a side, [M, size, size, 3], in [0, 1]."""
    scaled = (image.resize((size, size), Image.BICUBIC).convert("RGB") for image in images)
    return np.stack([np.asarray(image, np.float32) / 255 for image in scaled])


def family(entry: dict) -> str | None:
    """What an emoji shares with those that differ from it in skin tone or colour alone; None without these.

    Args:
      entry: what `make.py` wrote of a picture.
    """
    if isinstance(entry["tone"], int):
        return entry["base"]
    colour, _, shape = entry["label"].partition(" ")
    return shape if colour in COLOURS and shape in SHAPES else None


def relatives(index: list[dict], entry: dict) -> list[int]:
    """Numbers of the pictures of an entry's family, its own among them, in all designs."""
    own = family(entry)
    return [number for number, other in enumerate(index) if own and family(other) == own]


def is_right(drawn: np.ndarray, asked: dict, index: list[dict], pictures: np.ndarray) -> bool:
    """Whether a drawn picture has the skin tone or colour that was asked for.

    Args:
      drawn: [H, W, 3], in [0, 1].
      asked: entry of the index whose `family` is not None, and differs to look at in some design.
      index: of all real pictures.
      pictures: these, [M, H, W, 3].
    """
    found = {}
    for number in relatives(index, asked):
        found.setdefault(index[number]["design"], []).append(number)
    nearest = []
    for own in found.values():
        real = pictures[own]
        shows = np.ptp(real, axis=0).max(-1) > DIFFERS
        if not shows.any():  # a snowboarder whose face is covered
            continue
        apart = np.linalg.norm(real[:, shows].mean(1) - drawn[shows].mean(0), axis=-1)
        best = apart.argmin()
        nearest.append((apart[best], index[own[best]]["label"] == asked["label"]))
    return min(nearest)[1]
