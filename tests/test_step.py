"""The step: micro-batches and averages by hand, and the same numbers on two devices as on one.

Run as a script, it takes five steps of every case on the devices that it finds and writes where they led.
"""

import os
import subprocess
import sys
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from t2i_jax import models
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import sharding
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State
from t2i_jax.loop.step import make_step
from t2i_jax.random import stream

STEPS = 5
# name: changes to the smoke config, and to that of two devices
ON_ONE = {"patch_vqvae": {}, "patch_vqvae-accumulate": {"accumulate": 2}, "translator": {"ema": 0.9}}
ON_TWO = {
    "patch_vqvae/jit": {},
    "patch_vqvae/pmap": {"parallel": "pmap"},
    "patch_vqvae-accumulate/pmap": {"parallel": "pmap"},
    "translator/jit": {},
    "translator/pmap": {"parallel": "pmap"},
    "translator/fsdp": {"fsdp": True},
}


def fake_batch(config, seed):
    """What the task would read, at random."""
    rng, size, model = np.random.default_rng(seed), config.batch_size, config.model
    if config.task == "reconstruct":
        shape = (size, model.image_size, model.image_size, 3)
        return {"image": rng.random(shape, np.float32) * (rng.random((size, 1, 1, 1)) > 0.3).astype(np.float32)}
    ids = rng.integers(0, model.codebook_size, (size, model.num_tokens), np.int32)
    return {
        "ids": ids,
        "decoder_ids": np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=model.codebook_size),
        "text_ids": rng.integers(0, model.text_vocab_size, (size, model.text_len), np.int32),
        "text_mask": np.arange(model.text_len) < rng.integers(2, model.text_len, (size, 1)),
        "null": rng.random(size) < 0.3,
    }


def prepare(name):
    """Config, task, model and the variables to start from: no data, and codes of which a quarter is dead."""
    case = name.split("/")[0]
    config = load_config(f"{case.split('-')[0]}:smoke")
    config.steps, config.optim.lr = STEPS, 1e-3
    config.update(ON_ONE[case] | ON_TWO.get(name, {}))
    task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
    batch = fake_batch(config, 0)
    init = jax.jit(task.init, static_argnums=0)
    variables = init(model, stream(0, "init"), {key: value[:1] for key, value in batch.items()})
    params = variables.pop("params")
    if config.task == "reconstruct":
        for name, averages in variables["codebook"].items():
            size = len(averages["frequency"])
            dead = jnp.arange(size) % 4 == 0
            codebook = jax.random.uniform(jax.random.key(1), averages["total"].shape)
            frequency = jnp.where(dead, 0.02 / size, 1 / size)
            variables["codebook"][name] = {"frequency": frequency, "total": codebook * frequency[:, None]}
    return config, task, model, params, variables


def arrays_of(**trees):
    return {path: np.array(x) for path, x in flatten_dict(trees, sep="/").items()}


def take_steps(name):
    """Where five steps start and lead, with upkeep before each second one, and their metrics."""
    config, task, model, params, variables = prepare(name)
    out = arrays_of(start={"params": params, "variables": variables})
    optimizer = make_optimizer(config.optim, config.steps)
    state = State.create(params, variables, optimizer, config.ema)
    loss_fn = partial(task.loss_fn, model, **config.loss)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    state = step.place(state)
    upkeep = partial(jax.jit(task.upkeep, static_argnums=0), model) if config.upkeep_every else None
    for number in range(STEPS):
        batch = fake_batch(config, number)
        if upkeep and number % 2:
            before = step.gather(state).variables["codebook"]
            state = step.upkeep(upkeep, state, batch, stream(0, "upkeep", number))
            after = step.gather(state).variables["codebook"]
            for codebook in after:
                pair = (np.asarray(averages[codebook]["frequency"]) for averages in (before, after))
                out[f"revived/{number}/{codebook}"] = np.sum(np.not_equal(*pair))
        state, metrics = step(state, batch)
        out |= {f"metrics/{number}/{key}": np.asarray(value) for key, value in metrics.items()}
    if config.fsdp:
        out["sharded"] = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
    state = step.gather(state)
    return out | arrays_of(params=state.params, variables=state.variables, ema_params=state.ema_params)


def of_case(arrays, name):
    return {path[len(name) + 1 :]: x for path, x in arrays.items() if path.startswith(f"{name}:")}


def run_on(devices, path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(path)]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def test_two_devices_lead_where_one_does(tmp_path):
    """One test, so that the processes, which take nearly all of its time, run once under xdist as well."""
    processes = [run_on(devices, tmp_path / f"{devices}.npz") for devices in (1, 2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    results = {devices: dict(np.load(tmp_path / f"{devices}.npz")) for devices in (1, 2)}
    for name in ON_ONE:
        check_that_everything_moved(name, of_case(results[1], name))
    for case in ON_TWO:
        one, two = of_case(results[1], case.split("/")[0]), of_case(results[2], case)
        sharded = two.pop("sharded", None)
        assert sharded is None if "fsdp" not in case else sharded > 5
        assert one.keys() == two.keys()
        # Adam makes steps of rounding errors where gradients vanish (a key's bias changes no softmax; kernels
        # before a zero kernel): parameters agree to a twentieth of the 5e-3 that they can move. The codebook's
        # averages know no Adam.
        tolerances = {"metrics": {"rtol": 1e-4}, "params": {"atol": 2.5e-4}, "ema_params": {"atol": 2.5e-4}}
        for path, expected in one.items():
            tolerance = {"rtol": 0, "atol": 1e-5} | tolerances.get(path.partition("/")[0], {})
            if path.endswith("gradient_norm"):
                tolerance["rtol"] = 2e-3
            np.testing.assert_allclose(two[path], expected, **tolerance, err_msg=f"{case}: {path}")


def check_that_everything_moved(name, arrays):
    """Or the comparison would be of nothing."""
    starts = {path.removeprefix("start/"): x for path, x in arrays.items() if path.startswith("start/")}
    assert starts
    for path, start in starts.items():
        assert np.abs(arrays[path] - start).max() > 1e-4, path
    assert arrays["metrics/0/loss"] != arrays[f"metrics/{STEPS - 1}/loss"]
    if name == "translator":
        assert any(path.startswith("ema_params/") for path in arrays)
    else:
        revived = [x for path, x in arrays.items() if path.startswith("revived/1/")]
        assert min(revived) >= 1  # in every codebook
        assert sum(revived) >= 8


def toy(**changes):
    """A line through the origin: loss (weight * x - y)², plain gradient descent unless changed."""
    config = ConfigDict({"seed": 0, "accumulate": 1, "ema": 0.0, "parallel": "jit", "fsdp": False, "batch_size": 4})
    config.update(changes)

    def loss_fn(params, variables, batch, *, step, rngs, train):
        loss = jnp.mean((batch["x"] * params["weight"] - batch["y"]) ** 2)
        return loss, (variables, {"loss": loss})

    optimizer = optax.sgd(0.1)
    state = State.create({"weight": jnp.zeros(1)}, {}, optimizer, config.ema)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    return step, step.place(state)


BATCH = {
    "x": np.array([[1.0], [1.0], [2.0], [2.0]], np.float32),
    "y": np.array([[1.0], [2.0], [1.0], [4.0]], np.float32),
}


def test_a_step_by_hand():
    """The gradient at 0 is the mean of -2 x y = -2, -4, -4, -16: -6.5, and the loss that of y²: 5.5."""
    step, state = toy()
    state, metrics = step(state, BATCH)
    np.testing.assert_allclose(state.params["weight"], [0.65], rtol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(5.5)
    assert float(metrics["gradient_norm"]) == pytest.approx(6.5)
    assert int(state.step) == 1


def test_average_of_params_by_hand():
    """Decay 1/10, 2/11, 3/12: then the ceiling that the config sets."""
    step, state = toy(ema=0.15)
    weights, average = [], 0.0
    for decay in (1 / 10, 0.15, 0.15):
        state, _ = step(state, BATCH)
        weights.append(float(state.params["weight"][0]))
        average = decay * average + (1 - decay) * weights[-1]
        np.testing.assert_allclose(state.ema_params["weight"], [average], rtol=1e-6)
    assert state.eval_params is state.ema_params
    assert len(set(weights)) == 3


def test_without_average_the_params_themselves_are_evaluated():
    _, state = toy()
    assert state.ema_params == {}
    assert state.eval_params is state.params


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_lead_where_the_whole_batch_does(accumulate):
    rng, ends = np.random.default_rng(0), {}
    batch = {"x": rng.normal(size=(8, 1)).astype(np.float32), "y": rng.normal(size=(8, 1)).astype(np.float32)}
    for k in (1, accumulate):
        step, state = toy(accumulate=k, batch_size=8)
        for _ in range(3):
            state, metrics = step(state, batch)
        ends[k] = float(state.params["weight"][0]), float(metrics["loss"]), float(metrics["gradient_norm"])
    assert abs(ends[1][0]) > 0.01
    assert ends[accumulate] == pytest.approx(ends[1], abs=1e-6)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(6, 4), (9, 2)])
def test_a_batch_that_cannot_be_shared(batch_size, accumulate):
    with pytest.raises(UserError) as error:
        toy(batch_size=batch_size, accumulate=accumulate)
    devices = jax.device_count()
    assert str(error.value) == (
        f"config.batch_size {batch_size} is not divisible by {devices} devices x config.accumulate {accumulate};"
        f" choose a multiple of {devices * accumulate}"
    )


def test_an_unknown_parallel_and_pmap_with_fsdp():
    with pytest.raises(UserError, match=r"^config.parallel 'pjit' is unknown; choose jit, pmap$"):
        toy(parallel="pjit", batch_size=8)
    with pytest.raises(UserError, match=r"config.fsdp needs config.parallel"):
        toy(parallel="pmap", fsdp=True, batch_size=8)


if __name__ == "__main__":
    sharding.SMALLEST_SHARDED = 64
    cases = ON_ONE if jax.device_count() == 1 else ON_TWO
    np.savez(sys.argv[1], **{f"{name}:{path}": x for name in cases for path, x in take_steps(name).items()})
