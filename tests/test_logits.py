"""What a sampler does to logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute import K, brute_min_p, brute_top_k, brute_top_p, keys_of, rows

from t2i_jax.sampling.decoding import sample_ids
from t2i_jax.sampling.logits import apply_guidance, apply_temperature, keep_min_p, keep_top


def test_guidance_by_hand():
    cond, uncond = jnp.array([1.0, 2.0, 0.0]), jnp.array([0.0, 4.0, 0.0])
    assert apply_guidance(cond, uncond, 3.0).tolist() == [3.0, -2.0, 0.0]
    assert apply_guidance(cond, uncond, 0.0).tolist() == uncond.tolist()
    # Bit by bit, also where uncond + (cond - uncond) is rounded.
    cond, uncond = jax.random.normal(jax.random.key(0), (2, 50)) * jnp.array([[1.0], [1e3]])
    assert (uncond + (cond - uncond) != cond).any()
    np.testing.assert_array_equal(apply_guidance(cond, uncond, 1.0), cond)


def test_temperature_by_hand():
    logits = jnp.array([1.0, 3.0, 2.0])
    np.testing.assert_allclose(apply_temperature(logits, 0.5), [-4, 0, -2])
    for tiny in (1e-30, 1e-45):
        scaled = apply_temperature(logits, tiny)
        assert scaled[1] == 0
        assert (scaled[jnp.array([0, 2])] < -1e29).all()


def check_kept(kept, brute):
    for mine, row in zip(np.asarray(kept), rows(), strict=True):
        expected = brute(row)
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(mine)), sorted(expected))
        np.testing.assert_array_equal(mine[sorted(expected)], row[sorted(expected)])


@pytest.mark.parametrize("k", [0, 1, 2, 5, K - 1, K, K + 40])
def test_top_k_matches_brute_force(k):
    check_kept(jax.jit(keep_top)(rows(), k=k), lambda row: brute_top_k(row, k))


@pytest.mark.parametrize("p", [1e-30, 0.1, 0.33, 0.6, 0.9, 0.999, 1.0])
def test_top_p_matches_brute_force(p):
    check_kept(jax.jit(keep_top)(rows(), p=p), lambda row: brute_top_p(row, p if p < 1 else 2))


@pytest.mark.parametrize("p", [0.0, 1e-30, 0.01, 0.1, 0.33, 0.6, 0.9, 0.999, 1.0])
def test_min_p_matches_brute_force(p):
    check_kept(jax.jit(keep_min_p)(rows(), p), lambda row: brute_min_p(row, p))


@pytest.mark.parametrize(("p", "kept"), [(0, 4), (0.2, 4), (0.3, 3), (0.45, 3), (0.6, 2), (0.8, 1), (1, 1)])
def test_min_p_by_hand(p, kept):
    """Relative to the likeliest: 1, 3/4, 1/2, 1/4. What is lost does not depend on what the logits add up to."""
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    for shift in (0.0, 30.0, -30.0):
        expected = jnp.where(jnp.arange(4) < kept, logits + shift, -jnp.inf)
        np.testing.assert_array_equal(keep_min_p(logits + shift, p), expected)


def test_min_p_never_drops_the_likeliest_and_keeps_fewer_the_larger_it_is():
    logits = jnp.concatenate([jnp.asarray(rows()) * scale for scale in (1e-3, 1.0, 1e3, 1e30)])
    filtered = jax.jit(lambda logits, p: keep_min_p(logits, p))  # with a cache of its own
    before = jnp.ones(logits.shape, bool)
    for p in (0.0, 1e-30, 1e-3, 0.1, 0.5, 0.999999, 1.0):
        kept = jnp.isfinite(filtered(logits, p))
        assert jnp.take_along_axis(kept, logits.argmax(-1, keepdims=True), -1).all()
        assert not (kept & ~before).any()
        before = kept
    assert filtered._cache_size() == 1
    np.testing.assert_array_equal(before, logits == logits.max(-1, keepdims=True))


def test_filters_before_min_p_stay_out():
    """Top-p after min-p would count what min-p left, and keep id 0 alone."""
    probabilities = jnp.array([0.4, 0.3, 0.2, 0.1])
    logits = jnp.tile(jnp.log(probabilities), (500, 1))
    drawn = {
        settings: set(jax.jit(sample_ids)(keys_of(500), logits, 1.0, *settings).tolist())
        for settings in ((0, 0.5, 0.6), (3, 1.0, 0.2), (2, 0.9, 0.45), (0, 1.0, 0.45), (0, 0.5, 0.8))
    }
    assert list(drawn.values()) == [{0, 1}, {0, 1, 2}, {0, 1}, {0, 1, 2}, {0}]


def test_top_p_counts_what_top_k_left():
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    both = keep_top(logits, 2, 0.5)
    assert jnp.isfinite(both).tolist() == [True, False, False, False]
    assert jnp.isfinite(keep_top(logits, p=0.5)).tolist() == [True, True, False, False]
