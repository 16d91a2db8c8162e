"""Which photograph is a drawn crop from? Judged by pixels alone: the nearest of all crops of all photographs."""

import numpy as np
from jaxtyping import Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, SIDE, photograph
from t2i_jax.evals import tables

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


def score(images: UInt8[np.ndarray, "P n 64 64 3"]) -> dict[str, float]:
    """The share of right pictures for each caption of PHOTOGRAPHS (in that order), and "overall", their mean."""
    right = nearest_photograph(images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2])
    shares = (right == np.arange(len(PHOTOGRAPHS))[:, None]).mean(1)
    return dict(zip(PHOTOGRAPHS, map(float, shares), strict=True)) | {"overall": float(shares.mean())}


def format_table(columns: dict[str, dict[str, float]]) -> str:
    """A plain table: one row a caption and overall, one column a name."""
    rows = {row: [f"{scores[row]:.3f}" for scores in columns.values()] for row in (*PHOTOGRAPHS, "overall")}
    return tables.format_table("nearest photograph is the right one", list(columns), rows)
