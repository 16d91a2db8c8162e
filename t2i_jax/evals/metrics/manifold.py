"""Fidelity and variety apart.

Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).
A set of pictures is taken to fill the balls around its features that reach to the k-th nearest of the others.
"""

import numpy as np
from jaxtyping import Float

NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
ROWS = 1000  # features compared with all others at a time


def measure(
    generated: Float[np.ndarray, "n D"], reference: Float[np.ndarray, "m D"]
) -> dict[str, Float[np.ndarray, " _"]]:
    """The values whose means are the four measures.

    Args:
      generated, reference: features, more than five of each.

    Returns:
      `precision` [n]: whether a generated picture lies in a ball of a real one. `recall` [m]: whether a real one
      lies in a ball of a generated one. `density` [n]: in how many balls of real ones a generated one lies, over k.
      `coverage` [m]: whether the ball of a real one holds a generated one.
    """
    k = NEIGHBOURS
    real = {count: _radii(reference, count) for count in sorted({k["precision"], k["density"], k["coverage"]})}
    drawn = _radii(generated, k["recall"])
    precise, dense, recalled, nearest = [], [], [], np.full(len(reference), np.inf)
    for start in range(0, len(generated), ROWS):
        found = squared_distances(generated[start : start + ROWS], reference)
        precise.append((found <= real[k["precision"]]).any(1))
        dense.append((found <= real[k["density"]]).sum(1) / k["density"])
        recalled.append((found <= drawn[start : start + ROWS, None]).any(0))
        nearest = np.minimum(nearest, found.min(0))
    values = {
        "precision": np.concatenate(precise),
        "recall": np.any(recalled, axis=0),
        "density": np.concatenate(dense),
        "coverage": nearest <= real[k["coverage"]],
    }
    return {name: own.astype(np.float64) for name, own in values.items()}


def _radii(x, k: int) -> Float[np.ndarray, " n"]:
    """Squared distance of each to the k-th nearest of the others."""
    parts = (squared_distances(x[start : start + ROWS], x) for start in range(0, len(x), ROWS))
    return np.concatenate([np.partition(found, k, axis=1)[:, k] for found in parts])  # the 0-th is itself


def squared_distances(x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "n m"]:
    """In float64; of all pairs."""
    x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)
