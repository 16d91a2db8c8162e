"""Kernel distance (KID, Binkowski et al. 2018): unbiased, so that few pictures make it uncertain and not wrong."""

import numpy as np
from jaxtyping import Float

SUBSETS, SUBSET = 100, 1000  # as many, of as many pictures each: what the paper and torch-fidelity take


def distances(
    generated: Float[np.ndarray, "n D"],
    reference: Float[np.ndarray, "m D"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET,
    seed: int = 0,
) -> Float[np.ndarray, " subsets"]:
    """Unbiased squared maximum mean discrepancies of random subsets, kernel (x y / D + 1)^3.

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
