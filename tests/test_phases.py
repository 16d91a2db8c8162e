"""The step by hand: one phase and two, averages, micro-batches, parameters that a phase leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from ml_collections import ConfigDict

from t2i_jax import tasks
from t2i_jax.errors import UserError
from t2i_jax.loop.state import merge, split

ZERO = {"weight": np.zeros(1, np.float32)}


def test_a_step_by_hand(monkeypatch):
    """The gradient at 0 is the mean of -2 x y = -2, -4, -4, -16: -6.5, and the loss that of y²: 5.5."""
    built, state = toys.build(monkeypatch, toys.config(), toys.line, params=ZERO)
    state, metrics = built.step(state, toys.BATCH)
    np.testing.assert_allclose(state.params["weight"], [0.65], rtol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(5.5)
    assert float(metrics["gradient_norm"]) == pytest.approx(6.5)
    assert int(state.step) == 1


def test_two_phases_train_their_own_parameters_one_after_the_other(monkeypatch):
    """Each by its own loss and optimizer state; the second sees what the first has just moved."""

    def pull(params, variables, batch, *, step, rngs, train):
        loss = jnp.sum((params["follower"] - params["weight"]) ** 2)
        return loss, (variables, {"loss": loss})

    params = {"weight": np.zeros(1, np.float32), "follower": np.ones(1, np.float32)}
    trains = ("^weight$", "^follower$")
    built, state = toys.build(monkeypatch, toys.config(ema=0.5), toys.line, pull, params=params, trains=trains)
    assert set(state.opt_state) == {"train", "second"}
    state, metrics = built.step(state, toys.BATCH)
    np.testing.assert_allclose(state.params["weight"], [0.65], rtol=1e-6)
    np.testing.assert_allclose(state.params["follower"], [1 - 0.1 * 2 * (1 - 0.65)], rtol=1e-6)
    assert float(metrics["train/loss"]) == pytest.approx(5.5)
    assert float(metrics["second/loss"]) == pytest.approx(0.35**2)
    assert float(metrics["loss"]) == pytest.approx(5.5 + 0.35**2)


def test_what_no_phase_trains_gets_no_gradient_and_keeps_its_bits(monkeypatch):
    def loss_fn(params, variables, batch, *, step, rngs, train):
        loss = jnp.mean((batch["x"] * params["weight"] * params["features"]["scale"] - batch["y"]) ** 2)
        return loss, (variables, {"loss": loss})

    params = {"weight": np.zeros(1, np.float32), "features": {"scale": np.full(1, 1.1, np.float32)}}
    built, state = toys.build(monkeypatch, toys.config(), loss_fn, params=params, trains=("^(?!features/)",))
    for _ in range(3):
        state, _ = built.step(state, toys.BATCH)
    assert state.params["features"]["scale"] == np.float32(1.1)
    assert abs(float(state.params["weight"][0])) > 0.1


def test_split_and_merge_are_inverse():
    params = {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    phase = tasks.Phase(toys.line, ConfigDict(), trains="^a/b$|^d/")
    trained, others = split(params, phase)
    assert (trained, others) == ({"a": {"b": 1}, "d": {"e": 3}}, {"a": {"c": 2}})
    assert merge(trained, others) == params
    assert split(params, phase._replace(trains="")) == (params, {})
    frozen = ConfigDict({"lr_multipliers": {"a": 0.0, "a/c": 1.0}})
    assert split(params, phase._replace(trains="", optim=frozen)) == (
        {"a": {"c": 2}, "d": {"e": 3}},
        {"a": {"b": 1}},
    )
    assert split({"a": {"b": 1}}, phase._replace(optim=frozen)) == ({}, {"a": {"b": 1}})
    with pytest.raises(ValueError, match=r"^phase train trains '\^e/', which is in no path of a, d$"):
        split(params, phase._replace(trains="^e/"))


def test_one_phase_may_be_frozen_but_not_all(monkeypatch):
    frozen = toys.config(optim={"lr_multipliers": {"weight": 0.0}})
    with pytest.raises(UserError, match=r"^every parameter is frozen; see config.optim.lr_multipliers$"):
        toys.build(monkeypatch, frozen, toys.line, params=ZERO)

    def pull(params, variables, batch, *, step, rngs, train):
        loss = jnp.sum((params["follower"] - 1) ** 2)
        return loss, (variables, {"loss": loss})

    params, trains = {**ZERO, "follower": np.zeros(1, np.float32)}, ("^weight$", "^follower$")
    built, state = toys.build(monkeypatch, frozen, toys.line, pull, params=params, trains=trains)
    state, metrics = built.step(state, toys.BATCH)
    assert float(state.params["weight"][0]) == 0
    np.testing.assert_allclose(state.params["follower"], [0.2], rtol=1e-6)
    assert float(metrics["train/gradient_norm"]) == 0
    assert float(metrics["train/loss"]) == pytest.approx(5.5)


@pytest.mark.parametrize("multiplier", [0.0, 0.5])
def test_a_multiplier_for_what_is_not_there(multiplier, monkeypatch):
    with pytest.raises(UserError, match=r"^config.optim.lr_multipliers.bert names no part of this model: weight$"):
        toys.build(monkeypatch, toys.config(optim={"lr_multipliers": {"bert": multiplier}}), toys.line, params=ZERO)


def test_average_of_params_by_hand(monkeypatch):
    """Decay 1/10, 2/11, 3/12: then the ceiling that the config sets."""
    built, state = toys.build(monkeypatch, toys.config(ema=0.15), toys.line, params=ZERO)
    weights, average = [], 0.0
    for decay in (1 / 10, 0.15, 0.15):
        state, _ = built.step(state, toys.BATCH)
        weights.append(float(state.params["weight"][0]))
        average = decay * average + (1 - decay) * weights[-1]
        np.testing.assert_allclose(state.ema_params["weight"], [average], rtol=1e-6)
    assert state.eval_params is state.ema_params
    assert len(set(weights)) == 3


def test_without_average_the_params_themselves_are_evaluated(monkeypatch):
    _, state = toys.build(monkeypatch, toys.config(), toys.line, params=ZERO)
    assert state.ema_params == {}
    assert state.eval_params is state.params


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_lead_where_the_whole_batch_does(accumulate, monkeypatch):
    rng, ends = np.random.default_rng(0), {}
    batch = {name: rng.normal(size=(8, 1)).astype(np.float32) for name in "xy"}
    for k in (1, accumulate):
        built, state = toys.build(monkeypatch, toys.config(accumulate=k, batch_size=8), toys.line, params=ZERO)
        for _ in range(3):
            state, metrics = built.step(state, batch)
        ends[k] = float(state.params["weight"][0]), float(metrics["loss"]), float(metrics["gradient_norm"])
    assert abs(ends[1][0]) > 0.01
    assert ends[accumulate] == pytest.approx(ends[1], abs=1e-6)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(6, 4), (9, 2)])
def test_a_batch_that_cannot_be_shared(batch_size, accumulate, monkeypatch):
    with pytest.raises(UserError) as error:
        toys.build(monkeypatch, toys.config(batch_size=batch_size, accumulate=accumulate), toys.line, params=ZERO)
    devices = jax.device_count()
    assert str(error.value) == (
        f"config.batch_size {batch_size} is not divisible by {devices} devices x config.accumulate {accumulate};"
        f" choose a multiple of {devices * accumulate}"
    )


def test_an_unknown_parallel_and_pmap_with_a_split_state(monkeypatch):
    with pytest.raises(UserError, match=r"^config.parallel 'pjit' is unknown; choose jit, pmap$"):
        toys.build(monkeypatch, toys.config(parallel="pjit", batch_size=8), toys.line, params=ZERO)
    mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    with pytest.raises(UserError, match=r"config.mesh.fsdp and .tensor need config.parallel"):
        toys.build(monkeypatch, toys.config(parallel="pmap", mesh=mesh, batch_size=8), toys.line, params=ZERO)


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ({"data": 3, "fsdp": 1, "tensor": 1}, "data 3, fsdp 1, tensor 1"),
        ({"data": -1, "fsdp": -1, "tensor": 1}, "data -1, fsdp -1, tensor 1"),
        ({"data": -1, "fsdp": 1, "tensor": 0}, "tensor 0"),
    ],
)
def test_a_mesh_that_is_not_all_devices(mesh, said, monkeypatch):
    with pytest.raises(UserError, match=rf"^config.mesh \(.*{said}.*\) does not make up \d+ devices"):
        toys.build(monkeypatch, toys.config(mesh=mesh), toys.line, params=ZERO)


def test_what_does_not_move_keeps_its_bits_over_three_micro_batches(monkeypatch):
    """A sum of three, divided by three, would not: many of these values would change."""
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    assert ((values + values + values) / np.float32(3) != values).any()

    def loss_fn(params, variables, batch, *, step, rngs, train):
        return jnp.sum(0.0 * params["kept"]), (variables, {})

    config = toys.config(accumulate=3, ema=0.9, batch_size=6)
    built, state = toys.build(
        monkeypatch, config, loss_fn, params={"kept": values}, variables={"own": {"kept": values}}
    )
    for _ in range(2):
        state, _ = built.step(state, {"x": np.zeros((6, 1), np.float32), "y": np.zeros((6, 1), np.float32)})
    for kept in (state.variables["own"]["kept"], state.params["kept"], state.ema_params["kept"]):
        np.testing.assert_array_equal(kept, values)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_averages_move_once_a_step_by_what_the_whole_batch_asks_for(accumulate, monkeypatch):
    """0.9 of the past each step, not of each micro-batch."""

    def loss_fn(params, variables, batch, *, step, rngs, train):
        average = 0.9 * variables["own"]["average"] + 0.1 * batch["x"].mean()
        return params["weight"].sum() * 0.0, ({"own": {"average": average}}, {})

    ends, batch = {}, {name: np.arange(8, dtype=np.float32)[:, None] for name in "xy"}
    for k in (1, accumulate):
        built, state = toys.build(
            monkeypatch,
            toys.config(accumulate=k, batch_size=8),
            loss_fn,
            params=ZERO,
            variables={"own": {"average": np.ones((), np.float32)}},
        )
        for _ in range(2):
            state, _ = built.step(state, batch)
        ends[k] = float(state.variables["own"]["average"])
    assert ends[1] == pytest.approx(0.81 + 0.19 * 3.5, abs=1e-6)
    assert ends[accumulate] == pytest.approx(ends[1], abs=1e-6)


@pytest.mark.parametrize("name", ["dropout", "noise"])
def test_micro_batches_and_streams_draw_their_own_numbers(name, monkeypatch):
    other = {"dropout": "noise", "noise": "dropout"}[name]

    def loss_fn(params, variables, batch, *, step, rngs, train):
        mine, others = (jax.random.uniform(rngs[each]) for each in (name, other))
        at = batch["x"][0, 0].astype(int)
        draws = variables["own"]["draws"].at[at].set(jnp.stack([mine, others]))
        return params["weight"].sum() * 0.0, ({"own": {"draws": draws}}, {})

    batch, seen = {each: (np.arange(4) % 2)[:, None].astype(np.float32) for each in "xy"}, []
    variables = {"own": {"draws": np.zeros((2, 2), np.float32)}}
    built, state = toys.build(monkeypatch, toys.config(accumulate=2), loss_fn, params=ZERO, variables=variables)
    for _ in range(3):
        state, _ = built.step(state, batch)
        seen += np.asarray(state.variables["own"]["draws"]).ravel().tolist()
    assert len(set(seen)) == 12
