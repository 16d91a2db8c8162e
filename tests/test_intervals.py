"""95% intervals: cover what they should as often as they should."""

import numpy as np
import pytest

from t2i_jax.evals import intervals


def test_a_share_of_coins_is_as_uncertain_as_a_binomial():
    right = np.arange(400) < 120
    low, high = intervals.of_shares(right, ["a"] * 400)["a"]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.012)


def test_strata_are_drawn_apart():
    """Classes that are all right or all wrong have no interval, and neither has their mean."""
    found = intervals.of_shares([True] * 5 + [False] * 5, ["a"] * 5 + ["b"] * 5)
    assert found == {"a": [1, 1], "b": [0, 0], "overall": [0.5, 0.5]}


def test_intervals_cover():
    rng, hits = np.random.default_rng(0), np.zeros(2)
    for number in range(200):
        x = rng.exponential(size=60)
        ends = (
            intervals.bootstrap(lambda w, x=x: {"mean": np.average(x, weights=w)}, [0] * 60, 100, number)["mean"],
            intervals.of_mean(x),
        )
        hits += [low <= 1 <= high for low, high in ends]
    assert np.all(hits >= 178)
    assert np.all(hits <= 198)


def test_jackknife_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 20))  # 50 parts
    kept = [np.delete(x, i, axis=0).mean() for i in range(50)]
    low, high = intervals.jackknife(x.mean(), kept, 49 / 50)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.3)
    assert intervals.jackknife(0.5, [0.5], 0.5) is None


def test_cells():
    assert intervals.cell(0.9391, [0.92, 0.95]) == "0.939 ±.015"
    assert intervals.cell(0.9391, None) == "0.939"
    assert intervals.cell(12.3456, [10.0, 15.0]) == "12.346 ±2.500"
