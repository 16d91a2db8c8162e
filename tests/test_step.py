"""The step leads to the same place on two devices as on one, by jit, pmap, sharded state and micro-batches.

Run as a script, it takes steps of each case on the devices that it finds and writes where they led. The updates
are plain gradient descent: Adam would make whole steps of rounding errors where gradients vanish.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from fakes import fake_batch, fake_variables
from flax.traverse_util import flatten_dict

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.loop import parallel, setup, sharding

STEPS, RATE = 4, 0.05
# name: changes to the smoke config; after the slash, changes for two devices
ON_ONE = {
    "patch_vqvae": {},
    "patch_vqvae-accumulate": {"accumulate": 2},
    "translator": {"ema": 0.9},
    "vae": {},
    "dvae": {},
    "prior": {},
    "dalle": {},
}
ON_TWO = {
    "patch_vqvae/jit": {},
    "patch_vqvae/pmap": {"parallel": "pmap"},
    "patch_vqvae-accumulate/jit": {},
    "patch_vqvae-accumulate/pmap": {"parallel": "pmap"},
    "translator/jit": {},
    "translator/pmap": {"parallel": "pmap"},
    "translator/fsdp": {"mesh": {"data": 1, "fsdp": 2, "tensor": 1}},
    "translator/tensor": {
        "mesh": {"data": 1, "fsdp": 1, "tensor": 2},
        "sharding_rules": (("mlp/up/kernel", (None, "tensor")), ("mlp/down/kernel", ("tensor", None))),
    },
    "dalle/jit": {},
    "prior/jit": {},
    # Each draws noise, the same for the whole batch however it is split; under pmap every device draws its own.
    "vae/jit": {},
    "dvae/jit": {},
}


def build(name):
    """A set-up of the smoke config, and its state from made-up numbers in which a quarter of the codes is dead."""
    case = name.split("/")[0]
    config = load_config(f"{case.split('-')[0]}:smoke")
    config.steps = STEPS
    config.update(ON_ONE[case] | ON_TWO.get(name, {}))
    built = parallel.make(tasks.make(config))
    variables = fake_variables({"params": built.shapes.params, **built.shapes.variables})
    for averages in variables.get("codebook", {}).values():
        size = len(averages["cluster_size"])
        dead = np.arange(size) % 4 == 0
        frequency = np.where(dead, 0.02 / size, 1 / size).astype(np.float32)
        codes = np.random.default_rng(2).random(averages["embedding_sum"].shape, np.float32)
        averages.update({"cluster_size": frequency, "embedding_sum": codes * frequency[:, None]})
    return built, built.with_variables(built.init(), variables.pop("params"), variables)


def arrays_of(**trees):
    return {path: np.array(x) for path, x in flatten_dict(trees, sep="/").items()}


def take_steps(name):
    """Where the steps start and lead, with dead codes restarted before each second one, and their metrics."""
    built, state = build(name)
    out = arrays_of(start={"params": state.params, "variables": state.variables})
    state = built.place(state)
    for number in range(STEPS):
        batch = fake_batch(built.task, built.config.batch_size, seed=number)
        if built.task.between_steps and number % 2:
            before = built.gather(state).variables["codebook"]
            state = built.between_steps(state, batch, number)
            after = built.gather(state).variables["codebook"]
            for codebook in after:
                pair = (np.asarray(averages[codebook]["cluster_size"]) for averages in (before, after))
                out[f"restarted/{number}/{codebook}"] = np.sum(np.not_equal(*pair))
        state, metrics = built.step(state, batch)
        out |= {f"metrics/{number}/{key}": np.asarray(value) for key, value in metrics.items()}
    if name in ("translator/fsdp", "translator/tensor"):
        out["sharded"] = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
    state = built.gather(state)
    return out | arrays_of(params=state.params, variables=state.variables, ema_params=state.ema_params)


def of_case(arrays, name):
    return {path[len(name) + 1 :]: x for path, x in arrays.items() if path.startswith(f"{name}:")}


def run_on(devices, path, *cases):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(path), *cases]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


USUAL = ("patch_vqvae", "patch_vqvae-accumulate", "translator")
RARE = pytest.param(tuple(name for name in ON_ONE if name not in USUAL), marks=pytest.mark.long)


@pytest.mark.parametrize("names", [USUAL, RARE], ids=["usual", "rare"])
def test_two_devices_lead_where_one_does(names, tmp_path):
    """All at once: the processes take nearly all of the time."""
    cases = {1: names, 2: [case for case in ON_TWO if case.split("/")[0] in names]}
    processes = [run_on(devices, tmp_path / f"{devices}.npz", *cases[devices]) for devices in (1, 2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    results = {devices: dict(np.load(tmp_path / f"{devices}.npz")) for devices in (1, 2)}
    for name in names:
        check_that_everything_moved(name, of_case(results[1], name))
    for case in cases[2]:
        one, two = of_case(results[1], case.split("/")[0]), of_case(results[2], case)
        assert case not in ("translator/fsdp", "translator/tensor") or two.pop("sharded") >= 4
        assert one.keys() == two.keys()
        for path, expected in one.items():
            rtol = 5e-5 if path.startswith("metrics/") else 1e-5
            np.testing.assert_allclose(two[path], expected, rtol=rtol, atol=1e-5, err_msg=f"{case}: {path}")


def check_that_everything_moved(name, arrays):
    """Or the comparison would be of nothing."""
    starts = {path.removeprefix("start/"): x for path, x in arrays.items() if path.startswith("start/params")}
    moved = [path for path, start in starts.items() if not np.array_equal(arrays[path], start)]
    assert len(moved) >= 0.8 * len(starts)  # some biases move nothing, and a dVAE's deep blocks too little to see
    assert arrays["metrics/0/loss"] != arrays[f"metrics/{STEPS - 1}/loss"]
    if name == "translator":
        assert any(path.startswith("ema_params/") for path in arrays)
    if name == "patch_vqvae":
        restarted = [x for path, x in arrays.items() if path.startswith("restarted/1/")]
        assert min(restarted) >= 1  # in every codebook
        assert sum(restarted) >= 8


if __name__ == "__main__":
    sharding.SMALLEST_SHARDED = 64
    setup.make_optimizer = lambda optim, steps: optax.sgd(RATE)
    path, *cases = sys.argv[1:]
    np.savez(path, **{f"{name}:{key}": x for name in cases for key, x in take_steps(name).items()})
