"""95% intervals of scores: what they would have been for other prompts (or pictures) of the same kind."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

ROUNDS = 400
TAILS = (0.025, 0.975)
NORMAL = 1.959964  # standard errors on either side of a mean, for 95%

Interval = list[float]  # its two ends; a list, as JSON has it


def bootstrap(
    score: Callable[[Int[np.ndarray, " P"]], Mapping[str, float]],
    strata: ArrayLike,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentiles of scores over prompts drawn again with replacement (Efron 1979).

    Args:
      score: scores by name, of prompts that count so many times each.
      strata: P labels; of each label as many prompts are drawn as there are.
      rounds, seed: of the drawing.

    Returns:
      The lower and the upper end, by the name of a score; none where there are no prompts.
    """
    _, labels = np.unique(np.asarray(strata), return_inverse=True)
    if not len(labels):
        return {}
    rng, groups = np.random.default_rng(seed), [np.flatnonzero(labels == own) for own in range(labels.max() + 1)]
    drawn = []
    for _ in range(rounds):
        weights = np.zeros(len(labels), np.int64)
        for group in groups:
            weights[group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)))
        drawn.append(score(weights))
    return {name: np.quantile([one[name] for one in drawn], TAILS).tolist() for name in drawn[0]}


def of_shares(right: ArrayLike, strata: ArrayLike, seed: int = 0) -> dict[str, Interval]:
    """Intervals of the share that is right in each stratum, by its name, and of "overall", their mean."""
    right, strata = np.asarray(right, float), np.asarray(strata)
    names = list(dict.fromkeys(strata.tolist()))

    def score(weights):
        shares = {str(name): float(np.average(right[own], weights=weights[own])) for name, own in rows.items()}
        return shares | {"overall": float(np.mean(list(shares.values())))}

    rows = {name: strata == name for name in names}
    return bootstrap(score, strata, seed=seed)


def of_mean(values: ArrayLike) -> Interval | None:
    """Mean of independent values, by its standard error; None of fewer than two."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    half = NORMAL * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def jackknife(value: float, parts: ArrayLike, kept: float) -> Interval | None:
    """Of a score, from its values on parts that keep a share of all pictures each (Shao & Wu 1989: delete-d).

    Args:
      value: of all pictures.
      parts: values.
      kept: in (0, 1).
    """
    if np.size(parts) < 2 or not 0 < kept < 1:
        return None
    half = NORMAL * float(np.std(parts)) * np.sqrt(kept / (1 - kept))
    return [value - half, value + half]


def cell(value: float, interval: Interval | None) -> str:
    """A score for a table: `0.939 ±.012`, half the interval's width behind it; `-` of none."""
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} ±{f'{(interval[1] - interval[0]) / 2:.3f}'.removeprefix('0')}"
