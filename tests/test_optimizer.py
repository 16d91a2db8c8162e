"""Schedules at known steps, and what weight decay and clipping touch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from ml_collections import ConfigDict

from configs.base import base
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import parallel
from t2i_jax.loop.optimizer import Optim, make_optimizer, make_schedule
from t2i_jax.lr_multipliers import is_frozen


def optim(**changes):
    return ConfigDict(dataclasses.asdict(Optim(**{"lr": 0.4, "warmup": 4, **changes})))


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
    for step, value in {0: 0.1, 1: 0.2, 3: 0.4, 4: 0.4, **expected}.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7), step
    assert float(make_schedule(optim(schedule=schedule, warmup=0), 20)(0)) == pytest.approx(0.4)


def test_the_first_update_trains():
    """A run of one step would else be none."""
    optimizer = make_optimizer(optim(), 20)
    params = {"kernel": jnp.ones((2, 3))}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-5)


def test_a_schedule_starts_again_from_the_rates_of_its_restarts():
    rate = make_schedule(optim(schedule="linear", restarts=((8, 0.2), (12, 0.1))), 20)
    expected = {0: 0.1, 2: 0.3, 3: 0.4, 4: 0.4, 6: 0.2, 7: 0.1, 8: 0.2, 10: 0.1, 12: 0.1, 16: 0.05, 20: 0.0}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7), step


def test_schedules_that_cannot_be():
    with pytest.raises(
        UserError, match=r"^config.optim.restarts \(\(12, 0.1\), \(8, 0.1\)\) are not steps in order"
    ):
        make_schedule(optim(restarts=((12, 0.1), (8, 0.1))), 20)
    with pytest.raises(UserError, match=r"^config.optim.warmup 4 is above the first restart 3; "):
        make_schedule(optim(restarts=((3, 0.1),)), 20)
    with pytest.raises(UserError, match=r"^config.optim.warmup 21 is above config.steps 20; "):
        make_schedule(optim(warmup=21), 20)
    make_schedule(optim(warmup=20), 20)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr", 0.0, "0 is not above 0; give a number above 0; a usual rate is 1e-3"),
        ("lr", -1.0, "-1 is below 0"),
        ("lr", float("nan"), "nan is not finite"),
        ("lr", float("inf"), "inf is not finite"),
        ("warmup", -1, "-1 is below 0; give a whole number from 0 up; 0 starts at the whole rate"),
        ("schedule", "step", "'step' is unknown; choose cosine, linear, constant"),
        ("b1", 1.0, "1 is not below 1; give a number from 0 to below 1"),
        ("b2", -0.1, "-0.1 is below 0; give a number from 0 to below 1"),
        ("weight_decay", -0.1, "-0.1 is below 0; give a number from 0 up; 0 is no decay"),
        ("clip", -1.0, "-1 is below 0; give a number from 0 up; 0 is no clip"),
        ("clip", float("nan"), "nan is not finite"),
        ("muon", -1.0, "-1 is below 0; give a number from 0 up; 0 is AdamW for everything"),
    ],
)
def test_numbers_out_of_their_range(field, value, said):
    with pytest.raises(UserError) as error:
        Optim(**{field: value})
    assert str(error.value).startswith(f"config.optim.{field} {said}")


def test_restarts_out_of_their_range():
    with pytest.raises(UserError, match=r"^config.optim.restarts has \(8, 0.0\); give a step and a rate above 0$"):
        Optim(restarts=((8, 0.0),))


def test_weight_decay_shrinks_matrices_alone():
    """Without a gradient AdamW only decays: by lr * weight_decay of the weight."""
    params = {"kernel": jnp.ones((2, 3)), "filter": jnp.ones((2, 2, 3)), "bias": jnp.ones(3), "gain": jnp.ones(())}
    optimizer = make_optimizer(optim(weight_decay=0.5, warmup=0, schedule="constant"), 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.4 * 0.5 if params[name].ndim > 1 else 0, err_msg=name)


def test_stacked_layers_decay_as_their_layers_would():
    """Biases and scales [L, D] have two dimensions, and are no matrices."""
    params = {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((4, 3)), "scale": jnp.ones((4, 3))}
    optimizer = make_optimizer(optim(weight_decay=0.5, warmup=0, schedule="constant"), 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.4 * 0.5 if name == "kernel" else 0, err_msg=name)


def test_a_clip_of_0_is_none():
    optimizer = make_optimizer(optim(b1=0.0, clip=0.0), 20)
    gradients = {"a": jnp.array([3.0])}
    updates, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    np.testing.assert_allclose(optax.tree.get(state, "mu")["a"], 3.0)
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-5)


def test_gradients_are_clipped_together():
    """To norm 1. Adam divides by the size of the gradient, so this shows in its first moment alone."""
    optimizer = make_optimizer(optim(b1=0.0, clip=1.0), 20)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose([moments["a"][0], moments["b"][0, 0]], [0.6, 0.8], rtol=1e-6)


def test_what_is_frozen_does_not_count_in_the_clip():
    """A frozen part's gradient of 400 would leave a hundredth of the others."""

    def loss_fn(params, variables, batch, *, step, rngs, train):
        loss = 3 * params["a"]["bias"].sum() + 4 * params["b"]["bias"].sum() + 400 * params["old"]["bias"].sum()
        return loss, (variables, {"loss": loss})

    params = {part: {"bias": np.ones(1, np.float32)} for part in ("a", "b", "old")}
    kind = {"b1": 0.0, "clip": 1.0, "warmup": 0, "lr_multipliers": {"old": 0.0}}
    built = parallel.make(toys.Toy(toys.config(optim=kind), (loss_fn,), params))
    state, metrics = built.step(built.init(), toys.BATCH)
    moments = optax.tree.get(state.opt_state, "mu")
    np.testing.assert_allclose([moments[part]["bias"][0] for part in "ab"], [0.6, 0.8], rtol=1e-6)
    assert float(metrics["gradient_norm"]) == pytest.approx(5)
    assert float(state.params["old"]["bias"][0]) == 1


def test_configs_start_from_its_defaults():
    """Those that a config does not set."""
    own = base().optim.to_dict()
    completed = load_config("patch_vqvae:digits").optim.to_dict()
    assert not own
    assert completed | {"restarts": ()} == dataclasses.asdict(Optim())


PARTS = {name: {"kernel": jnp.ones((2, 3))} for name in ("old", "slow", "new")}


def test_a_part_learns_at_its_own_rate():
    """Adam's first step has the size of the learning rate, whatever the gradient's."""
    kind = optim(lr_multipliers={"slow": 0.1}, weight_decay=0.5, warmup=0, schedule="constant")
    optimizer = make_optimizer(kind, 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, PARTS), optimizer.init(PARTS), PARTS)
    np.testing.assert_allclose(updates["new"]["kernel"], -0.4 * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(updates["slow"]["kernel"], -0.04 * (1 + 0.5), rtol=1e-5)


def test_the_multiplier_whose_name_ends_deepest_counts():
    params = {"gpt2": {"embed": jnp.ones((2, 3)), "block": {"cross": jnp.ones((2, 3)), "own": jnp.ones((2, 3))}}}
    settings = optim(
        lr_multipliers={"bert": 0.0, "gpt2": 0.1, "gpt2/embed": 0.5, "cross": 1.0}, warmup=0, schedule="constant"
    )
    optimizer = make_optimizer(settings, 20)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["gpt2"]["embed"], -0.2, rtol=1e-5)
    np.testing.assert_allclose(updates["gpt2"]["block"]["cross"], -0.4, rtol=1e-5)
    np.testing.assert_allclose(updates["gpt2"]["block"]["own"], -0.04, rtol=1e-5)
    assert is_frozen(settings, "bert/embed")
    assert not is_frozen(settings, "gpt2/block/own")
    assert not is_frozen(settings, "head")


def test_a_multiplier_that_cannot_be():
    with pytest.raises(
        UserError, match=r"^config.optim.lr_multipliers.old -1 is below 0; give a number from 0 up; 0 freezes"
    ):
        Optim(lr_multipliers={"old": -1.0})
