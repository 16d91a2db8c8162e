"""Which photograph is a drawn crop from? Judged by pixels alone: the nearest of all crops of all photographs."""

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, SIDE, photograph
from t2i_jax.evals import intervals, tables

PICTURES = 16  # drawn for each caption
STRIDE = 2  # pixels between the crops that a picture is compared with


def nearest_photograph(images: UInt8[np.ndarray, "B 64 64 3"]) -> Int[np.ndarray, " B"]:
    """The place in PHOTOGRAPHS of the photograph with the nearest crop, by Euclidean distance of pixels."""
    asked = images.reshape(len(images), -1).astype(np.float32)
    distances = []
    for words in PHOTOGRAPHS:
        crops = sliding_window_view(photograph(words), (SIDE, SIDE), axis=(0, 1))[::STRIDE, ::STRIDE]
        crops = crops.transpose(0, 1, 3, 4, 2).reshape(-1, asked.shape[1]).astype(np.float32)
        # |a - b|^2 without |a|^2, which is the same for all crops
        distances.append((np.sum(crops**2, -1) - 2 * asked @ crops.T).min(-1))
    return np.argmin(distances, axis=0)


def right(images: UInt8[np.ndarray, "P n 64 64 3"]) -> Bool[np.ndarray, "P n"]:
    """Whether the nearest photograph is the right one; pictures for each caption of PHOTOGRAPHS, in that order."""
    nearest = nearest_photograph(images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2])
    return nearest == np.arange(len(PHOTOGRAPHS))[:, None]


def shares(right: Bool[np.ndarray, "P n"]) -> dict[str, float]:
    """The share of right pictures for each caption, and "overall", their mean."""
    found = right.mean(1)
    return dict(zip(PHOTOGRAPHS, map(float, found), strict=True)) | {"overall": float(found.mean())}


def intervals_of(right: Bool[np.ndarray, "P n"]) -> dict:
    """95% intervals of `shares`: other pictures for each caption."""
    return intervals.of_shares(right.reshape(-1), np.repeat(list(PHOTOGRAPHS), right.shape[1]))


def format_table(columns: dict[str, dict[str, float]], of_columns: dict[str, dict]) -> str:
    """A plain table: one row a caption and overall, one column a name; see `tables.format_shares`."""
    title, rows = "nearest photograph is the right one", (*PHOTOGRAPHS, "overall")
    return tables.format_shares(title, columns, of_columns, rows)
