"""The step: micro-batches, averages and schedules by hand, and the same numbers on two devices as on one.

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

from configs import translator, vqvae
from t2i_jax import models
from t2i_jax.errors import UserError
from t2i_jax.loop import sharding
from t2i_jax.loop.optimizer import make_optimizer, make_schedule
from t2i_jax.loop.state import State, stream
from t2i_jax.loop.step import make_step

STEPS = 5
# name: changes to the smoke config
ON_ONE = {"vqvae": {}, "vqvae-accumulate": {"accumulate": 2}, "translator": {"ema": 0.9}}
ON_TWO = {
    f"{name}/{parallel}": {**changes, "parallel": parallel}
    for name, changes in ON_ONE.items()
    for parallel in ("jit", "pmap")
}
ON_TWO["translator/fsdp"] = {**ON_ONE["translator"], "parallel": "jit", "fsdp": True}


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


def prepare(name, changes):
    """Config, task, model and the variables to start from: no data, and codes of which a quarter is dead."""
    config = {"vqvae": vqvae, "translator": translator}[name.split("/")[0].split("-")[0]].get_config("smoke")
    config.steps, config.optim.lr = STEPS, 1e-3
    config.update(changes)
    task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
    batch = fake_batch(config, 0)
    variables = jax.jit(partial(task.init, model))(stream(0, "init"), {k: v[:1] for k, v in batch.items()})
    params = variables.pop("params")
    if config.task == "reconstruct":
        averages = variables["codebook"]["quantizer"]
        size = len(averages["frequency"])
        dead = jnp.arange(size) % 4 == 0
        codebook = jax.random.uniform(jax.random.key(1), averages["total"].shape)
        frequency = jnp.where(dead, 0.02 / size, 1 / size)
        variables["codebook"]["quantizer"] = {"frequency": frequency, "total": codebook * frequency[:, None]}
    return config, task, model, params, variables


def take_steps(name, changes):
    """Params, variables, averages and metrics after five steps, upkeep before each second one."""
    config, task, model, params, variables = prepare(name, changes)
    optimizer = make_optimizer(config.optim, config.steps)
    state = State.create(params, variables, optimizer, config.ema)
    loss_fn = partial(task.loss_fn, model, **config.loss)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    state = step.place(state)
    upkeep, out = jax.jit(partial(task.upkeep, model)) if config.upkeep_every else None, {}
    for number in range(STEPS):
        batch = fake_batch(config, number)
        if upkeep and number % 2:
            before = step.gather(state).variables["codebook"]["quantizer"]["frequency"]
            state = step.upkeep(upkeep, state, batch, stream(0, "upkeep", number))
            after = step.gather(state).variables["codebook"]["quantizer"]["frequency"]
            out[f"revived/{number}"] = np.sum(np.asarray(before) != np.asarray(after))
        state, metrics = step(state, batch)
        out |= {f"metrics/{number}/{key}": np.asarray(value) for key, value in metrics.items()}
    if config.fsdp:
        out["sharded"] = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
    state = step.gather(state)
    trees = {"params": state.params, "variables": state.variables, "ema_params": state.ema_params}
    return out | {path: np.asarray(x) for path, x in flatten_dict(trees, sep="/").items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where five steps led, {devices: {case/path: array}}, each from a process of its own."""
    folder, processes = tmp_path_factory.mktemp("steps"), {}
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false"
        environment = os.environ | {
            "XLA_FLAGS": flags,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, __file__, str(folder / f"{devices}.npz")]
        processes[devices] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    for process in processes.values():
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return {devices: dict(np.load(folder / f"{devices}.npz")) for devices in processes}


@pytest.mark.parametrize("case", ON_TWO)
def test_two_devices_lead_where_one_does(results, case):
    one, two = (
        {
            path.removeprefix(f"{prefix}:"): value
            for path, value in results[devices].items()
            if path.startswith(f"{prefix}:")
        }
        for devices, prefix in ((1, case.split("/")[0]), (2, case))
    )
    sharded = two.pop("sharded", None)
    assert sharded is None if "fsdp" not in case else sharded > 5
    assert one.keys() == two.keys()
    assert any(path.startswith("ema_params/") for path in one) == ("translator" in case)
    for path, expected in one.items():
        tolerance = {"rtol": 1e-4} if path.startswith("metrics/") else {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(two[path], expected, **tolerance, err_msg=path)


def test_the_steps_that_are_compared_move_every_part_and_revive_codes(results):
    for name, changes in ON_ONE.items():
        one = {path.removeprefix(f"{name}:"): x for path, x in results[1].items() if path.startswith(f"{name}:")}
        _, _, _, params, variables = prepare(name, changes)
        for path, start in flatten_dict({"params": params, "variables": variables}, sep="/").items():
            assert np.abs(one[path] - np.asarray(start)).max() > 1e-4, path
        if name.startswith("vqvae"):
            assert one["revived/1"] == 16
        assert one[f"metrics/{STEPS - 1}/loss"] != one["metrics/0/loss"]


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


def test_micro_batches_lead_where_the_whole_batch_does():
    config, task, model, params, _ = prepare("translator", {})
    optimizer, ends = optax.sgd(0.5), {}
    for accumulate in (1, 2, 4):
        config.accumulate = accumulate
        state = State.create(params, {}, optimizer, 0.0)
        step = make_step(state, loss_fn=partial(task.loss_fn, model), optimizer=optimizer, config=config)
        state = step.place(state)
        for number in range(2):
            state, metrics = step(state, fake_batch(config, number))
        ends[accumulate] = {"loss": metrics["loss"], **state.params}
    jax.tree.map(
        lambda a, b: np.testing.assert_raises(AssertionError, np.testing.assert_array_equal, a, b),
        params["head"],
        ends[1]["head"],
    )
    for accumulate in (2, 4):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-6), ends[accumulate], ends[1])


def test_micro_batches_draw_their_own_dropout():
    config = ConfigDict({"seed": 0, "accumulate": 2, "ema": 0.0, "parallel": "jit", "fsdp": False, "batch_size": 2})

    def loss_fn(params, variables, batch, *, step, rngs, train):
        draw = jax.random.uniform(rngs["dropout"])
        return params * 0.0, ({"draws": variables["draws"].at[batch["x"][0]].set(draw)}, {})

    optimizer, seen = optax.sgd(0.1), []
    state = State.create(jnp.zeros(()), {"draws": jnp.zeros(2)}, optimizer, 0.0)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    state = step.place(state)
    for _ in range(3):
        state, _ = step(state, {"x": np.arange(2)})
        seen += np.asarray(state.variables["draws"]).tolist()
    assert len(set(seen)) == 6


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
    with pytest.raises(UserError, match="^config.parallel 'pjit' is unknown; choose jit, pmap$"):
        toy(parallel="pjit", batch_size=8)
    with pytest.raises(UserError, match="config.fsdp needs config.parallel"):
        toy(parallel="pmap", fsdp=True, batch_size=8)


def optim(**changes):
    fields = {
        "lr": 0.4,
        "warmup": 4,
        "schedule": "cosine",
        "b1": 0.9,
        "b2": 0.999,
        "weight_decay": 0.0,
        "clip": 1.0,
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


def test_schedules_that_cannot_be():
    with pytest.raises(
        UserError, match="^config.optim.schedule 'step' is unknown; choose cosine, linear, constant$"
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
    """b1 = b2 = 0 and a large eps-free Adam would hide the norm, so it is read from the first moment."""
    optimizer = make_optimizer(optim(b1=0.0, clip=1.0), 20)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose([moments["a"][0], moments["b"][0, 0]], [0.6, 0.8], rtol=1e-6)


if __name__ == "__main__":
    sharding.SMALLEST_SHARDED = 64
    cases = ON_ONE if jax.device_count() == 1 else ON_TWO
    arrays = {
        f"{name}:{path}": x for name, changes in cases.items() for path, x in take_steps(name, changes).items()
    }
    np.savez(sys.argv[1], **arrays)
