"""Which class of Fashion-MNIST is a picture of? A classifier that never sees a caption.

Ridge regression on a Nystroem approximation of the Gaussian kernel (Williams & Seeger 2001), over histograms of
gradient orientation (Dalal & Triggs 2005) and coarse pixels. No network is trained, so it is the same every time.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Integer, UInt8
from ml_collections import ConfigDict
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.pipeline import make_pipeline

from t2i_jax.data.sources import open_split
from t2i_jax.data.sources.fashion_mnist import CAPTIONS
from t2i_jax.evals import intervals, tables

PICTURES = 30  # drawn for each caption
ORIENTATIONS, CELL = 8, 4  # of a histogram, and the side of the pixels that share one
COARSE = 0.15  # weight of pixels averaged over 2 x 2, beside the histograms
LANDMARKS = 1500  # of the approximation
CHUNK = 5000  # pictures at a time: 25,000 numbers each


class Classifier:
    """Trains on construction, in half a minute; then a function from pictures to labels."""

    def __init__(self, images: UInt8[np.ndarray, "n 28 28 1"], labels: Integer[np.ndarray, " n"]):
        described = _describe(images)
        width = np.median(euclidean_distances(described[:1000], squared=True))
        kernel = Nystroem(gamma=2 / width, n_components=min(LANDMARKS, len(images)), random_state=0)
        self._model = make_pipeline(kernel, RidgeClassifier(alpha=0.1)).fit(described, labels)

    def __call__(self, images: UInt8[np.ndarray, "n 28 28 1"]) -> Integer[np.ndarray, " n"]:
        """The label of each picture."""
        return self._model.predict(_describe(images))


Labelled = tuple[UInt8[np.ndarray, "n 28 28 1"], Integer[np.ndarray, " n"]]


def read(data: Mapping | ConfigDict, split: str) -> Labelled:
    """Pictures and labels of a split of the set that `config.data` names.

    Raises:
      UserError: the set cannot be opened.
    """
    rows = list(open_split(data, split)[0])
    labels = [CAPTIONS.index(row["caption"].decode()) for row in rows]
    return np.stack([row["image"] for row in rows]), np.array(labels)


def some_of_each(
    images: UInt8[np.ndarray, "n H W C"], labels: Integer[np.ndarray, " n"], count: int, seed: int
) -> UInt8[np.ndarray, "P count H W C"]:
    """`count` pictures of each class, others for another seed."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [images[rng.permutation(np.flatnonzero(labels == own))[:count]] for own in range(len(CAPTIONS))]
    )


def shares(found: Integer[np.ndarray, " n"], labels: Integer[np.ndarray, " n"]) -> dict[str, float]:
    """The share of right answers by caption, and "overall", their mean."""
    by_class = {words: float(np.mean(found[labels == own] == own)) for own, words in enumerate(CAPTIONS)}
    return by_class | {"overall": float(np.mean(list(by_class.values())))}


def intervals_of(found: Integer[np.ndarray, " n"], labels: Integer[np.ndarray, " n"]) -> dict:
    """95% intervals of `shares`: other pictures of each class."""
    return intervals.of_shares(found == labels, np.array(CAPTIONS)[labels])


def format_table(columns: dict[str, dict[str, float]], of_columns: dict[str, dict]) -> str:
    """A plain table: one row a caption and overall, one column a name; see `tables.format_shares`."""
    rows, title = (*CAPTIONS, "overall"), "classified as the caption says"
    return tables.format_shares(title, columns, of_columns, rows, rules=(len(CAPTIONS),))


def _describe(images: np.ndarray) -> Float32[np.ndarray, "n F"]:
    """Square roots of normalised histograms of gradient orientation in cells, and coarse pixels."""
    parts = [images[start : start + CHUNK, ..., 0] for start in range(0, len(images), CHUNK)]
    return np.concatenate([np.concatenate([_histograms(part), _coarse(part)], 1) for part in parts])


def _histograms(images: np.ndarray) -> np.ndarray:
    down, right = np.gradient(images.astype(np.float32), axis=(1, 2))
    size, turn = np.hypot(down, right), np.arctan2(down, right) / (2 * np.pi) * ORIENTATIONS
    lower = np.floor(turn)
    shares = np.zeros((*images.shape, ORIENTATIONS), np.float32)
    for bins, part in ((lower, 1 - turn + lower), (lower + 1, turn - lower)):
        np.put_along_axis(shares, bins[..., None].astype(int) % ORIENTATIONS, (size * part)[..., None], -1)
    cells = len(images), images.shape[1] // CELL, CELL, images.shape[2] // CELL, CELL, ORIENTATIONS
    histograms = shares.reshape(cells).sum((2, 4)).reshape(len(images), -1)
    return np.sqrt(histograms / (np.linalg.norm(histograms, axis=1, keepdims=True) + 1e-3))


def _coarse(images: np.ndarray) -> np.ndarray:
    n, height, width = images.shape
    blocks = images.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4), dtype=np.float32)
    return COARSE / 255 * blocks.reshape(n, -1)
