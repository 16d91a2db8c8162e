"""Schedules at known steps, and what weight decay and clipping touch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from t2i_jax.errors import UserError
from t2i_jax.loop.optimizer import make_optimizer, make_schedule


def optim(**changes):
    fields = {
        "lr": 0.4,
        "warmup": 4,
        "schedule": "cosine",
        "b1": 0.9,
        "b2": 0.999,
        "weight_decay": 0.0,
        "clip": 1.0,
        "restarts": (),
        "factors": {},
        "muon": 0.0,
    }
    return ConfigDict(fields | changes)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {8: 0.4 * (1 + 0.5**0.5) / 2, 12: 0.2, 20: 0.0}),
        ("linear", {8: 0.3, 12: 0.2, 20: 0.0}),
        ("constant", {8: 0.4, 20: 0.4}),
    ],
)
def test_schedules_at_known_steps(schedule, expected):
    rate = make_schedule(optim(schedule=schedule), 20)
    for step, value in {0: 0.0, 1: 0.1, 3: 0.3, 4: 0.4, **expected}.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7), step
    assert float(make_schedule(optim(schedule=schedule, warmup=0), 20)(0)) == pytest.approx(0.4)


def test_a_schedule_starts_again_from_the_rates_of_its_restarts():
    rate = make_schedule(optim(schedule="linear", restarts=((8, 0.2), (12, 0.1))), 20)
    expected = {0: 0.0, 2: 0.2, 4: 0.4, 6: 0.2, 7: 0.1, 8: 0.2, 10: 0.1, 12: 0.1, 16: 0.05, 20: 0.0}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7), step


def test_schedules_that_cannot_be():
    with pytest.raises(
        UserError, match=r"^config.optim.restarts \(\(12, 0.1\), \(8, 0.1\)\) are not steps in order"
    ):
        make_schedule(optim(restarts=((12, 0.1), (8, 0.1))), 20)
    with pytest.raises(UserError, match=r"^config.optim.warmup 4 is above the first restart 3; "):
        make_schedule(optim(restarts=((3, 0.1),)), 20)
    with pytest.raises(
        UserError, match=r"^config.optim.schedule 'step' is unknown; choose cosine, linear, constant$"
    ):
        make_schedule(optim(schedule="step"), 20)
    with pytest.raises(UserError, match=r"^config.optim.warmup 21 is above config.steps 20; "):
        make_schedule(optim(warmup=21), 20)
    make_schedule(optim(warmup=20), 20)


def test_weight_decay_shrinks_matrices_alone():
    """Without a gradient AdamW only decays: by lr * weight_decay of the weight."""
    params = {"kernel": jnp.ones((2, 3)), "filter": jnp.ones((2, 2, 3)), "bias": jnp.ones(3), "scale": jnp.ones(())}
    optimizer = make_optimizer(optim(weight_decay=0.5, warmup=0, schedule="constant"), 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.4 * 0.5 if params[name].ndim > 1 else 0, err_msg=name)


def test_gradients_are_clipped_together():
    """To norm 1. Adam divides by the size of the gradient, so this shows in its first moment alone."""
    optimizer = make_optimizer(optim(b1=0.0, clip=1.0), 20)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose([moments["a"][0], moments["b"][0, 0]], [0.6, 0.8], rtol=1e-6)


PARTS = {name: {"kernel": jnp.ones((2, 3))} for name in ("old", "slow", "new")}


def test_a_part_learns_at_its_own_rate_and_a_frozen_one_not_at_all():
    """Adam's first step has the size of the learning rate, whatever the gradient's."""
    kind = optim(factors={"slow": 0.1}, weight_decay=0.5, warmup=0, schedule="constant")
    optimizer = make_optimizer(kind, 20, frozen=["old"])
    state = optimizer.init(PARTS)
    updates, after = optimizer.update(jax.tree.map(jnp.ones_like, PARTS), state, PARTS)
    np.testing.assert_array_equal(updates["old"]["kernel"], 0)
    np.testing.assert_allclose(updates["new"]["kernel"], -0.4 * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(updates["slow"]["kernel"], -0.04 * (1 + 0.5), rtol=1e-5)
    matrices = [x for x in jax.tree.leaves(after) if x.ndim == 2]
    assert len(matrices) == 2 * 2  # two moments each of the two parts that learn


def test_the_gradient_of_a_frozen_part_clips_nothing():
    optimizer = make_optimizer(optim(factors={"old": 0.0}, b1=0.0), 20)
    gradients = jax.tree.map(lambda x: 0 * x, PARTS)
    gradients["old"]["kernel"] += 100
    gradients["new"]["kernel"] += 0.01
    _, state = optimizer.update(gradients, optimizer.init(PARTS), PARTS)
    moments = [x for x in jax.tree.leaves(optax.tree.get_all_with_path(state, "mu")) if hasattr(x, "ndim")]
    np.testing.assert_allclose(max(float(x.max()) for x in moments), 0.01, rtol=1e-6)


def test_the_factor_whose_name_ends_deepest_counts():
    params = {
        "bert": {"embed": jnp.ones((2, 3))},
        "gpt2": {"embed": jnp.ones((2, 3)), "block": {"cross": jnp.ones((2, 3)), "own": jnp.ones((2, 3))}},
    }
    factors = {"bert": 0.0, "gpt2": 0.1, "gpt2/embed": 0.5, "cross": 1.0}
    optimizer = make_optimizer(optim(factors=factors, warmup=0, schedule="constant"), 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    np.testing.assert_array_equal(updates["bert"]["embed"], 0)
    np.testing.assert_allclose(updates["gpt2"]["embed"], -0.2, rtol=1e-5)
    np.testing.assert_allclose(updates["gpt2"]["block"]["cross"], -0.4, rtol=1e-5)
    np.testing.assert_allclose(updates["gpt2"]["block"]["own"], -0.04, rtol=1e-5)


def test_factors_that_cannot_be():
    with pytest.raises(UserError, match=r"^config.optim.factors.old -1.0 is below 0; 0 freezes this part$"):
        make_optimizer(optim(factors={"old": -1.0}), 20)
    with pytest.raises(UserError, match=r"^config.optim.factors.bert names no part of this model: old, slow, new$"):
        make_optimizer(optim(factors={"bert": 0.5}), 20).init(PARTS)


def test_muon_turns_the_update_of_a_kernel_into_an_orthogonal_one():
    """Whatever the gradient's singular values: all its directions learn as fast. Everything else is AdamW's."""
    key = jax.random.key(0)
    left, right = (jnp.linalg.qr(jax.random.normal(key, (n, 4)))[0] for n in (8, 6))
    kernel = left @ jnp.diag(jnp.array([1.0, 0.1, 0.01, 1e-3])) @ right.T
    params = {
        "head": {"kernel": jnp.zeros((8, 6))},
        "part": {"kernel": jnp.zeros((8, 6)), "embedding": jnp.zeros((8, 6)), "bias": jnp.zeros(6)},
        "old": {"kernel": jnp.zeros((8, 6))},
    }
    gradients = jax.tree.map(lambda x: kernel if x.ndim == 2 else kernel[0], params)
    kind = {"warmup": 0, "schedule": "constant", "clip": 1e9, "factors": {"part": 0.1}}
    updates, plain = (
        optimizer.update(gradients, optimizer.init(params), params)[0]
        for optimizer in (make_optimizer(optim(muon=rate, **kind), 20, ["old"]) for rate in (2.0, 0.0))
    )
    moved = updates["part"].pop("kernel"), plain["part"].pop("kernel")
    jax.tree.map(np.testing.assert_array_equal, updates, plain)
    np.testing.assert_array_equal(updates["old"]["kernel"], 0)
    # 0.2 sqrt(8): a matrix of orthonormal columns, its entries about as large as those of Adam's steps
    size = 0.1 * 0.4 * 2.0 * 0.2 * 8**0.5
    values = jnp.linalg.svd(moved[0], compute_uv=False) / size
    assert 0.6 < values[2] < values[0] < 1.3  # Newton and Schulz's five steps bring singular values near 1
    np.testing.assert_allclose(-jnp.sum(moved[0] * (left @ right.T)) / 4 / size, 1, atol=0.4)
    assert jnp.linalg.svd(moved[1], compute_uv=False)[2] < 0.1 * jnp.linalg.norm(moved[1])


def test_a_negative_rate_of_muon():
    with pytest.raises(UserError, match=r"^config.optim.muon -1.0 is below 0; 0 is AdamW for everything$"):
        make_optimizer(optim(muon=-1.0), 20)
