"""The step leads to the same place on two devices as on one, by jit, pmap, sharded state and micro-batches.

Run as a script, it takes steps of each case on the devices that it finds and writes where they led. The translator
learns by Muon and AdamW behind a clip, the others by plain gradient descent.
"""

import re
import sys

import jax
import numpy as np
import optax
import pytest
from fakes import fake_batch, fake_variables
from flax.traverse_util import flatten_dict
from processes import finish, start

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.loop import optimizer, parallel, setup, sharding

STEPS, RATE = 4, 0.05
TOLERANCE, OF_METRICS = 1e-5, 3e-5  # of the largest value of each array; 2e-6 and 9e-6 were measured
MOVED = {
    "vae": 0.4,
    "dvae": 0.1,
    "prior": 0.3,
}  # share of arrays that plain gradient descent moves enough to compare
MUON = {"lr": 0.01, "warmup": 1, "clip": 0.5, "weight_decay": 0.1, "muon": 2.0}
# name: changes to the smoke config; after the slash, changes for two devices
ON_ONE = {
    "patch_vqvae": {},
    "patch_vqvae-accumulate": {"accumulate": 2},
    "translator": {"ema": 0.9, "optim": MUON},
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
    plain = case != "translator"
    setup.make_optimizer = (lambda optim, steps: optax.sgd(RATE)) if plain else optimizer.make_optimizer
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
    moments = {f"moments{jax.tree_util.keystr(path)}": x for path, x in jax.tree.leaves_with_path(state.opt_state)}
    out |= {path: np.array(x) for path, x in moments.items()}
    return out | arrays_of(params=state.params, variables=state.variables, ema_params=state.ema_params)


def of_case(arrays, name):
    return {path[len(name) + 1 :]: x for path, x in arrays.items() if path.startswith(f"{name}:")}


USUAL = [
    "patch_vqvae-accumulate/jit",
    "patch_vqvae-accumulate/pmap",
    "translator/pmap",
    "translator/fsdp",
    "translator/tensor",
]
RARE = pytest.param([case for case in ON_TWO if case not in USUAL], marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize("names", [USUAL, RARE], ids=["usual", "rare"])
def test_two_devices_lead_where_one_does(names, tmp_path):
    """All at once: the processes take nearly all of the time."""
    cases = {1: sorted({name.split("/")[0] for name in names}), 2: names}
    finish([start(__file__, tmp_path / f"{devices}.npz", *cases[devices], devices=devices) for devices in (1, 2)])
    results = {devices: dict(np.load(tmp_path / f"{devices}.npz")) for devices in (1, 2)}
    for name in cases[1]:
        check_that_everything_moved(name, of_case(results[1], name))
    for case in cases[2]:
        one, two = of_case(results[1], case.split("/")[0]), of_case(results[2], case)
        sharded = two.pop("sharded", 0)
        assert sharded >= 4 or case not in ("translator/fsdp", "translator/tensor")
        assert one.keys() == two.keys()
        for path, expected in one.items():
            if not is_rounding(path):
                atol = (OF_METRICS if path.startswith("metrics/") else TOLERANCE) * np.abs(expected).max()
                np.testing.assert_allclose(two[path], expected, rtol=0, atol=atol, err_msg=f"{case}: {path}")


def is_rounding(path):
    """Softmax does not see what all keys share: gradients of their biases are rounding; Adam makes steps of it."""
    return re.search(r"\bkey\W+bias\b", path) is not None


def check_that_everything_moved(name, arrays):
    """Far more than the tolerance, or the comparison would be of nothing."""
    starts = {path.removeprefix("start/"): x for path, x in arrays.items() if path.startswith("start/params")}
    ends = {path: arrays[path] for path in starts if not is_rounding(path)}
    still = [p for p, end in ends.items() if np.abs(end - starts[p]).max() < 50 * TOLERANCE * np.abs(end).max()]
    assert len(still) <= (1 - MOVED.get(name, 1)) * len(ends), f"{name}: {still}"
    assert arrays["metrics/0/loss"] != arrays[f"metrics/{STEPS - 1}/loss"]
    if name == "translator":
        assert min(arrays[f"metrics/{number}/gradient_norm"] for number in range(STEPS)) > MUON["clip"]
        for kind in ("ema_params/", "moments", "moments['train'][1].inner_states['muon 1']"):
            assert any(path.startswith(kind) for path in arrays)
    if name.startswith("patch_vqvae"):
        restarted = [x for path, x in arrays.items() if path.startswith("restarted/1/")]
        assert min(restarted) >= 1  # in every codebook
        assert sum(restarted) >= 8


if __name__ == "__main__":
    sharding.SMALLEST_SHARDED = 64
    path, *cases = sys.argv[1:]
    np.savez(path, **{f"{name}:{key}": x for name in cases for key, x in take_steps(name).items()})
