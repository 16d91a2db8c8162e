"""Reads a picture of digits: how many, which, in what colour and where. It never sees a caption.

Three steps. Places: the layouts that scenes know (one in the middle, two halves, four quadrants) compete to
explain the ink, each with the freedom of its jitter, and the cheapest wins; ink that it leaves unexplained
counts as an unknown object, so a messy picture is wrong about its number of objects. Colour: the palette's
nearest hue, as the angle between RGB vectors. Digit: a support vector machine on histograms of gradient
orientation (Dalal and Triggs, CVPR 2005), trained on handwriting of its own, from which no scene is made: 99.7%
right on that of validation. What looks like no handwriting is unknown too.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy import ndimage
from sklearn.svm import SVC

from t2i_jax.data.scenes import CANVAS, CELL, COLOURS, JITTER, PALETTE, handwriting

UNKNOWN = -1
"""The digit of an object that is none."""

# Ink is measured in pixels of full brightness: the faintest digit in the thinnest colour has about 32.
_GROUND = 0.2  # brightness in [0, 1] up to which a pixel is taken for ground
_FAINTEST = 15.0  # ink below which a place counts as empty
_UNEXPLAINED = 10.0  # ink outside all places that makes an unknown object
_COST = 6.0  # ink that one more place must explain to be worth it
_COHERENT = 0.6  # share of an object's ink that must lie near its mean hue
_HUE_ANGLE = 0.2  # radians, how near that is; the palette's closest two hues are 0.216 apart
_LIKENESS = 0.8  # least cosine to some instance of its own; all handwriting reaches 0.86, noise 0.80

_MIDDLE = range((CANVAS - CELL) // 2 - JITTER, (CANVAS - CELL) // 2 + JITTER + 1)
_LOW, _HIGH = range(1), range(CELL, CELL + 1)
# Each layout: (whether every place must be filled, its places as ranges of the top left corner in y and x).
_LAYOUTS = (
    (True, ((_MIDDLE, _MIDDLE),)),
    (True, ((_MIDDLE, _LOW), (_MIDDLE, _HIGH))),
    (True, ((_LOW, _MIDDLE), (_HIGH, _MIDDLE))),
    (False, tuple((y, x) for y in (_LOW, _HIGH) for x in (_LOW, _HIGH))),
)
_HUES = np.array([PALETTE[name] for name in COLOURS], np.float32)
_HUES /= np.linalg.norm(_HUES, axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Reading:
    """One object: its digit (or UNKNOWN), its colour ("" for none or several) and its centre in pixels.

    `ink` is float32 [16, 16] in [0, 1], its strength of colour, recentred; empty for ink that fills no place.
    """

    digit: int
    colour: str
    y: float
    x: float
    ink: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)), compare=False, repr=False)


class Detector:
    """Trains on construction (seconds, the same every time); then a function from pictures to readings."""

    def __init__(self, copies: int = 20, seed: int = 0):
        """
        Args:
            copies: distorted copies of every training instance.
            seed: of the distortions.
        """
        ink, labels = handwriting("judge")
        rng = np.random.default_rng(seed)
        distorted = [np.stack([_distort(one, rng) for one in ink]) for _ in range(copies)]
        samples = _centre(np.concatenate([ink, *distorted]))[0]
        self._classifier = SVC(C=10.0, gamma=2.0)
        self._classifier.fit(_orientations(samples), np.tile(labels, copies + 1))
        self._instances = _thumbnails(samples[: len(ink)])

    def __call__(self, images: UInt8[np.ndarray, "B 32 32 3"]) -> list[list[Reading]]:
        """The objects in each picture (RGB, 0 to 255), unknown ones last."""
        pixels = images.astype(np.float32) / 255
        brightness = pixels.max(-1)
        pixels = np.where(brightness[..., None] > _GROUND, pixels, 0)
        picture, corners, unexplained = _find_places(pixels.max(-1))
        readings: list[list[Reading]] = [[] for _ in images]
        if len(picture):
            rows = corners[:, 0, None, None] + np.arange(CELL)[None, :, None]
            columns = corners[:, 1, None, None] + np.arange(CELL)[None, None, :]
            crops = pixels[picture[:, None, None], rows, columns]
            colours, ink = _read_colours(crops)
            centred, middles = _centre(ink)
            for index, digit, colour, (y, x), crop in zip(
                picture, self.classify(centred), colours, corners + middles, centred, strict=True
            ):
                readings[index].append(Reading(int(digit), colour, float(y), float(x), crop))
        for index in np.flatnonzero(unexplained > _UNEXPLAINED):
            readings[index].append(Reading(UNKNOWN, "", CANVAS / 2, CANVAS / 2))
        return readings

    def classify(self, ink: Float32[np.ndarray, "n 16 16"]) -> Int[np.ndarray, "n"]:
        """Digits of crops with ink in [0, 1], each centred on its ink; UNKNOWN where it resembles none."""
        digits = self._classifier.predict(_orientations(ink))
        likeness = (_thumbnails(ink) @ self._instances.T).max(1)
        return np.where(likeness < _LIKENESS, UNKNOWN, digits)


def centred_handwriting(split: str) -> tuple[Float32[np.ndarray, "n 16 16"], Int[np.ndarray, "n"]]:
    """The ink of every instance, recentred as readings are, and its digit; see `scenes.handwriting`."""
    ink, labels = handwriting(split)
    return _centre(ink)[0], labels


def centred_ink(crops: Float32[np.ndarray, "n 16 16 3"]) -> Float32[np.ndarray, "n 16 16"]:
    """The ink of crops with a digit each, pixels in [0, 1], as it stands in a `Reading` of it."""
    bright = np.where(crops.max(-1, keepdims=True) > _GROUND, crops, 0)
    return _centre(_read_colours(bright)[1])[0]


def _find_places(ink: Float32[np.ndarray, "B 32 32"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where objects stand.

    Returns:
        For every place found, its picture's number [n] and its top left corner [n, 2]; and the ink that lies
        outside all places [B].
    """
    table = np.pad(ink.cumsum(1, dtype=np.float64).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    last = CANVAS - CELL + 1
    # windows[b, y, x] is the ink of the 16x16 window whose corner is (y, x)
    windows = table[:, CELL:, CELL:] - table[:, :last, CELL:] - table[:, CELL:, :last] + table[:, :last, :last]
    total = table[:, -1, -1]
    costs, layouts = [], []
    for must_fill, places in _LAYOUTS:
        corners, explained = [], []
        for ys, xs in places:
            part = windows[:, ys.start : ys.stop, xs.start : xs.stop].reshape(len(ink), len(ys) * len(xs))
            best = part.argmax(1)
            corners.append(np.stack([ys.start + best // len(xs), xs.start + best % len(xs)], -1))
            explained.append(part.max(1))
        explained = np.stack(explained, 1)
        filled = explained >= _FAINTEST
        unexplained = total - (explained * filled).sum(1)
        valid = filled.all(1) if must_fill else filled.any(1)
        costs.append(np.where(valid, unexplained + _COST * filled.sum(1), np.inf))
        layouts.append((np.stack(corners, 1), filled, unexplained))
    winner = np.argmin(costs, axis=0)
    found = np.isfinite(np.min(costs, axis=0))
    pictures, all_corners, rest = [], [], total.copy()
    for number, (corners, filled, unexplained) in enumerate(layouts):
        mine = (winner == number) & found
        rest[mine] = unexplained[mine]
        picture, place = np.nonzero(filled & mine[:, None])
        pictures.append(picture)
        all_corners.append(corners[picture, place])
    return np.concatenate(pictures), np.concatenate(all_corners), rest


def _read_colours(
    crops: Float32[np.ndarray, "n 16 16 3"],
) -> tuple[list[str], Float32[np.ndarray, "n 16 16"]]:
    """Each crop's colour, "" where it has several, and its ink in [0, 1], the strength of that colour."""
    mean = crops.sum((1, 2))
    mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-6)
    nearest = (mean @ _HUES.T).argmax(-1)
    length = np.linalg.norm(crops, axis=-1)
    near = np.einsum("nyxc,nc->nyx", crops, mean) >= np.cos(_HUE_ANGLE) * length
    coherent = (length * near).sum((1, 2)) >= _COHERENT * length.sum((1, 2))
    names = [COLOURS[index] if one else "" for index, one in zip(nearest, coherent, strict=True)]
    full = np.array([PALETTE[name] for name in COLOURS], np.float32)[nearest] / 255
    ink = np.einsum("nyxc,nc->nyx", crops, full) / np.square(full).sum(-1)[:, None, None]
    return names, np.clip(ink, 0, 1).astype(np.float32)


def _centre(
    ink: Float32[np.ndarray, "n 16 16"],
) -> tuple[Float32[np.ndarray, "n 16 16"], Float[np.ndarray, "n 2"]]:
    """Moves each crop's ink to the middle by whole pixels; also where the middle (y, x) of its box was."""
    middles = []
    for axis in (2, 1):
        marked = (ink > 0.25).any(axis)
        first, last = marked.argmax(1), ink.shape[1] - 1 - marked[:, ::-1].argmax(1)
        middles.append((first + last) / 2)
    middles = np.stack(middles, -1)
    shift = np.rint(middles - (CELL - 1) / 2).astype(int)
    padded = np.pad(ink, ((0, 0), (CELL, CELL), (CELL, CELL)))
    rows = CELL + shift[:, 0, None, None] + np.arange(CELL)[None, :, None]
    columns = CELL + shift[:, 1, None, None] + np.arange(CELL)[None, None, :]
    return padded[np.arange(len(ink))[:, None, None], rows, columns], middles


def _thumbnails(ink: Float32[np.ndarray, "n 16 16"]) -> Float32[np.ndarray, "n 64"]:
    """Halved in size and scaled to length 1, so that a product of two is their cosine."""
    small = ink.reshape(-1, CELL // 2, 2, CELL // 2, 2).mean((2, 4)).reshape(-1, CELL * CELL // 4)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def _orientations(ink: Float32[np.ndarray, "n 16 16"], bins: int = 8) -> Float32[np.ndarray, "n d"]:
    """Gradient strength by orientation (8 bins) in a 4x4 grid of Gaussian windows; root, then length 1."""
    dy, dx = np.gradient(np.pad(ink, ((0, 0), (1, 1), (1, 1))), axis=(1, 2))
    dy, dx = dy[:, 1:-1, 1:-1], dx[:, 1:-1, 1:-1]
    angle = np.arctan2(dy, dx) / (2 * np.pi) * bins
    distance = np.abs(angle[..., None] - np.arange(bins, dtype=np.float32)) % bins
    votes = np.clip(1 - np.minimum(distance, bins - distance), 0, 1) * np.hypot(dy, dx)[..., None]
    centres = (np.arange(4) + 0.5) * CELL / 4 - 0.5
    window = np.exp(-np.square((np.arange(CELL) - centres[:, None]) / 1.5) / 2).astype(np.float32)
    pooled = np.einsum("iy,nyxb,jx->nijb", window, votes, window, optimize=True).reshape(len(ink), -1)
    pooled = np.sqrt(pooled)
    return pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)


def _distort(ink: Float32[np.ndarray, "16 16"], rng: np.random.Generator) -> Float32[np.ndarray, "16 16"]:
    """A slightly rotated, stretched, slanted and moved copy."""
    angle, slant = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-0.1, 0.1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, 0], [slant, 1]]) @ np.diag(rng.uniform(0.94, 1.06, 2))
    middle = np.full(2, (CELL - 1) / 2)
    offset = middle - matrix @ middle + rng.uniform(-0.5, 0.5, 2)
    return np.clip(ndimage.affine_transform(ink, matrix, offset, order=1), 0, 1)
