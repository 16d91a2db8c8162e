"""Kernel distances: KID (Binkowski et al. 2018) and CMMD (Jayasumana et al. 2024)."""

import numpy as np
from jaxtyping import Float

from t2i_jax.evals.metrics.manifold import ROWS, squared_distances

SUBSETS, SUBSET = 100, 1000  # as many, of as many pictures each: what the paper and torch-fidelity take
SIGMA, SCALE = 10, 1000  # of CMMD


def distances(
    generated: Float[np.ndarray, "n D"],
    reference: Float[np.ndarray, "m D"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET,
    seed: int = 0,
) -> Float[np.ndarray, " subsets"]:
    """KID: unbiased squared maximum mean discrepancies of random subsets, kernel (x y / D + 1)^3.

    Few pictures make it uncertain and not wrong.

    Args:
      generated, reference: features.
      subsets: how many; each is drawn without replacement.
      size: pictures of each set in a subset, at least 2 and at most n and m.
      seed: of the subsets.
    """
    rng = np.random.default_rng(seed)
    return np.array(
        [
            discrepancy(*(x[rng.choice(len(x), size, replace=False)] for x in (generated, reference)))
            for _ in range(subsets)
        ]
    )


def discrepancy(x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m D"]) -> float:
    """Unbiased squared maximum mean discrepancy of two sets (Gretton et al. 2012, eq. 3); it may be below 0."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a):  # without the pairs of a picture with itself
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def gaussian(generated: Float[np.ndarray, "n D"], reference: Float[np.ndarray, "m D"]) -> Float[np.ndarray, " n"]:
    """CMMD: 1000 times the squared maximum mean discrepancy, kernel exp(-|x - y|^2 / (2 10^2)).

    As the paper's code has it, the mean over pairs includes each picture with itself (Gretton et al. 2012, eq. 5).
    So it is never below 0, and for two sets of one kind above it: by 5 E|x - x'|^2 (1/n + 1/m), about.

    Args:
      generated, reference: features of length 1, of CLIP.

    Returns:
      A value a generated picture, whose mean is the distance. Their deviation is that of the pictures' influence on
      it, so that the standard error of the mean is the distance's.
    """
    x, y = generated.astype(np.float64), reference.astype(np.float64)
    within, across = _similarity(x, x), _similarity(x, y)
    return SCALE * (2 * (within - across) - within.mean() + _similarity(y, y).mean())


def _similarity(x, y) -> Float[np.ndarray, " n"]:
    """Mean kernel of each of `x` with all of `y`."""
    parts = (squared_distances(x[start : start + ROWS], y) for start in range(0, len(x), ROWS))
    return np.concatenate([np.exp(found / (-2 * SIGMA**2)).mean(1) for found in parts])
