"""Captioned digits: scenes of one to four handwritten digits on a black ground, and the words for them.

A `Scene` is what a caption says and nothing more. `render` decides the rest (which handwriting, which side,
how much jitter), so one scene has many pictures. The handwriting is scikit-learn's bundled digits (Alpaydin
and Kaynak, "Optical recognition of handwritten digits", UCI 1998),
split by instance before any scene is made.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 90, 230),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 200),
    "orange": (240, 140, 30),
    "cyan": (50, 200, 220),
    "white": (240, 240, 240),
}
COLOURS = tuple(PALETTE)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = ("left of", "right of", "above", "below")
MIXTURE = {"single": 0.12, "pair": 0.35, "relation": 0.40, "count": 0.13}
"""How often each kind of scene is drawn: digits are bound to colours and positions by pairs and relations alone."""
HELD_OUT = frozenset({("red", 0), ("yellow", 7), ("purple", 4), ("orange", 1)})
"""(colour, digit) that no training or validation scene contains."""

CANVAS = 32  # pixels a side
CELL = 16  # pixels a side of one digit
JITTER = 4  # pixels, the furthest a digit strays from its place
_HANDWRITING_SEED = 0
_SHARE = 360  # instances for validation, and as many for the judge


@dataclasses.dataclass(frozen=True)
class Digit:
    """One coloured digit: `colour` is a name in PALETTE, `value` is 0 to 9."""

    colour: str
    value: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a caption says.

    kind: "single" (1 digit), "pair" (2, no order), "relation" (2, the first stands `relation` the second)
    or "count" (2 to 4 times the same digit). `relation` is one of RELATIONS, and empty for other kinds.
    """

    kind: str
    digits: tuple[Digit, ...]
    relation: str = ""


def caption(scene: Scene) -> str:
    """The scene in words: `an orange one`, `a red three left of a blue seven`, `three yellow sixes`."""
    first = scene.digits[0]
    if scene.kind == "count":
        plural = DIGITS[first.value] + ("es" if DIGITS[first.value].endswith("x") else "s")
        return f"{DIGITS[len(scene.digits)]} {first.colour} {plural}"
    return f" {scene.relation or 'and'} ".join(_noun_phrase(digit) for digit in scene.digits)


def _noun_phrase(digit: Digit) -> str:
    article = "an" if digit.colour[0] in "aeiou" else "a"
    return f"{article} {digit.colour} {DIGITS[digit.value]}"


def draw_scene(rng: np.random.Generator, kind: str | None = None, held_out: bool = False) -> Scene:
    """Draws a scene, uniform among those its kind permits.

    Args:
        rng: source of randomness; it is advanced.
        kind: a key of MIXTURE; None draws the kind by MIXTURE.
        held_out: False gives scenes without any digit of HELD_OUT, True scenes with at least one.

    Raises:
        ValueError: `kind` is no key of MIXTURE.
    """
    if kind is None:
        kind = str(rng.choice(list(MIXTURE), p=list(MIXTURE.values())))
    if kind not in MIXTURE:
        raise ValueError(f"no scene kind {kind!r}; there are {', '.join(MIXTURE)}")
    while True:
        scene = _draw_any(rng, kind)
        repeats = kind in ("pair", "relation") and scene.digits[0] == scene.digits[1]
        has_held_out = any((digit.colour, digit.value) in HELD_OUT for digit in scene.digits)
        if has_held_out == held_out and not repeats:
            return scene


def _draw_any(rng: np.random.Generator, kind: str) -> Scene:
    if kind == "count":
        return Scene(kind, (_draw_digit(rng),) * int(rng.integers(2, 5)))
    if kind == "single":
        return Scene(kind, (_draw_digit(rng),))
    relation = RELATIONS[rng.integers(len(RELATIONS))] if kind == "relation" else ""
    return Scene(kind, (_draw_digit(rng), _draw_digit(rng)), relation)


def _draw_digit(rng: np.random.Generator) -> Digit:
    return Digit(COLOURS[rng.integers(len(COLOURS))], int(rng.integers(len(DIGITS))))


@functools.cache
def handwriting(split: str) -> tuple[Float32[np.ndarray, "n 16 16"], Int64[np.ndarray, "n"]]:
    """Handwritten digits, split 60/20/20 by instance (seeded, stratified).

    Args:
        split: "train" (1,077 instances), "validation" (360), or "judge" (360), of which no scene is made.

    Returns:
        Ink in [0, 1] (8x8 scans enlarged bicubically, clipped) and the digits. Both are read-only and shared.

    Raises:
        ValueError: another split.
    """
    scans = load_digits()
    rest, by_name = np.arange(len(scans.target)), {}
    for name in ("validation", "judge"):
        rest, by_name[name] = train_test_split(
            rest, test_size=_SHARE, random_state=_HANDWRITING_SEED, stratify=scans.target[rest]
        )
    by_name["train"] = rest
    if split not in by_name:
        raise ValueError(f"no handwriting split {split!r}; there are {', '.join(by_name)}")
    indices = np.sort(by_name[split])
    enlarged = [
        Image.fromarray(scan.astype(np.float32) / 16).resize((CELL, CELL), Image.Resampling.BICUBIC)
        for scan in scans.images[indices]
    ]
    ink = np.clip(np.stack([np.asarray(image) for image in enlarged]), 0, 1).astype(np.float32)
    labels = scans.target[indices].astype(np.int64)
    ink.flags.writeable = labels.flags.writeable = False
    return ink, labels


@functools.cache
def _instances(split: str) -> tuple[np.ndarray, ...]:
    """Handwriting by digit: ten arrays [n_digit, 16, 16]."""
    ink, labels = handwriting(split)
    return tuple(ink[labels == value] for value in range(len(DIGITS)))


def render(scene: Scene, split: str, rng: np.random.Generator, fine: bool = False) -> UInt8[np.ndarray, "32 32 3"]:
    """Draws a picture of the scene; the same scene and random state give the same picture.

    Args:
        scene: what to draw.
        split: whose handwriting, "train" or "validation".
        rng: chooses instances, places and jitter; it is advanced.
        fine: jitter by any whole number of pixels in [-4, 4] instead of one of -4, 0, 4.

    Returns:
        RGB on black, 0 to 255.
    """
    corners = corners_of(scene, rng, fine)
    inks = []
    for digit in scene.digits:
        instances = _instances(split)[digit.value]
        inks.append(instances[rng.integers(len(instances))])
    return paint(scene, inks, corners)


def paint(
    scene: Scene, inks: Sequence[Float32[np.ndarray, "16 16"]], corners: Sequence[tuple[int, int]]
) -> UInt8[np.ndarray, "32 32 3"]:
    """A picture of the scene with a chosen instance, and a top left corner (y, x), for each of its digits."""
    picture = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    for digit, ink, (y, x) in zip(scene.digits, inks, corners, strict=True):
        tinted = ink[..., None] * np.asarray(PALETTE[digit.colour], np.float32)
        picture[y : y + CELL, x : x + CELL] = np.rint(tinted).astype(np.uint8)
    return picture


def corners_of(scene: Scene, rng: np.random.Generator, fine: bool) -> list[tuple[int, int]]:
    """Draws the top left corners (y, x) of the digits' cells, in the order of `scene.digits`."""

    def jittered() -> int:
        shift = rng.integers(-JITTER, JITTER + 1) if fine else JITTER * rng.integers(-1, 2)
        return (CANVAS - CELL) // 2 + int(shift)

    if scene.kind == "single":
        return [(jittered(), jittered())]
    if scene.kind == "count":
        quadrants = rng.permutation(4)[: len(scene.digits)]
        return [(CELL * int(quadrant // 2), CELL * int(quadrant % 2)) for quadrant in quadrants]
    relation = scene.relation or RELATIONS[rng.integers(len(RELATIONS))]
    first = 0 if relation in ("left of", "above") else CELL
    ends = (first, CELL - first)
    if relation in ("left of", "right of"):
        return [(jittered(), x) for x in ends]
    return [(y, jittered()) for y in ends]
