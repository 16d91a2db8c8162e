"""A task of one parameter, without data or a model: what the loop does, without the time that models take."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from t2i_jax import tasks
from t2i_jax.loop import parallel, setup


def config(**changes) -> ConfigDict:
    """The fields that a set-up reads."""
    fields = {
        "name": "toy",
        "seed": 0,
        "steps": 6,
        "batch_size": 4,
        "accumulate": 1,
        "parallel": "jit",
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
        "sharding_rules": (),
        "ema": 0.0,
        "skip_nonfinite": 0,
        "matmul": "float32",
        "init_from": "",
        "wandb": "",
        "parents": {},
        "optim": {},
        "loss": {},
    }
    return ConfigDict(fields | changes)


class Toy(tasks.Task):
    """Phases, params and variables as given; a batch is `x` [B, 1] and `y` [B, 1]."""

    def __init__(self, config, loss_fns, params, variables=None, trains=("",)):
        self.config = config
        self._losses, self._trains = loss_fns, trains
        self._variables = {"params": params, **(variables or {})}

    def batch_spec(self, size):
        return {name: jax.ShapeDtypeStruct((size, 1), jnp.float32) for name in "xy"}

    def init(self, key, batch):
        return jax.tree.map(jnp.asarray, self._variables)

    def phases(self):
        names = ("train", "second")
        return tuple(
            tasks.Phase(loss_fn, self.config.optim, name, trains)
            for name, loss_fn, trains in zip(names, self._losses, self._trains, strict=False)
        )


def build(monkeypatch, config, *loss_fns, params, variables=None, trains=("", ""), rate=0.1):
    """The set-up of a toy task that learns by plain gradient descent, and its first state."""
    monkeypatch.setattr(setup, "make_optimizer", lambda optim, steps: optax.sgd(rate))
    built = parallel.make(Toy(config, loss_fns, params, variables, trains))
    return built, built.place(built.init())


def line(params, variables, batch, *, step, rngs, train):
    """A line through the origin: (weight * x - y)²."""
    loss = jnp.mean((batch["x"] * params["weight"] - batch["y"]) ** 2)
    return loss, (variables, {"loss": loss})


BATCH = {
    "x": np.array([[1.0], [1.0], [2.0], [2.0]], np.float32),
    "y": np.array([[1.0], [2.0], [1.0], [4.0]], np.float32),
}


def loop_config(**changes) -> ConfigDict:
    """The fields that the loop reads."""
    fields = {
        "task": "toy",
        "model_name": "toy",
        "model": {},
        "data": {},
        "sampling": {},
        "log_every": 1,
        "eval_every": 3,
        "checkpoint_every": 2,
        "keep_checkpoints": 2,
        "codebook_reset_every": 0,
        "optim": {
            "lr": 0.1,
            "warmup": 1,
            "schedule": "cosine",
            "b1": 0.9,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip": 1.0,
            "restarts": (),
            "lr_multipliers": {},
            "muon": 0.0,
        },
    }
    return config(**(fields | changes))


class LoopToy(Toy):
    """A line, 16 points of data, and an evaluator that calls `during`."""

    def __init__(self, config, during=lambda step: None):
        super().__init__(config, (line,), {"weight": np.zeros(1, np.float32)})
        self._during, self.evaluated = during, []

    def prepare(self, folder, parents):
        points = [{"x": np.float32([i]), "y": np.float32([2 * i])} for i in range(16)]
        dataset = grain.MapDataset.source(points)
        return tasks.Data({"train": dataset, "validation": dataset}, lambda example, rng: example)

    def evaluators(self):
        def evaluate(params, variables):
            self._during(float(params["weight"][0]))
            self.evaluated.append(float(params["weight"][0]))
            return {"weight": float(params["weight"][0])}, {}

        return {"toy": tasks.Evaluator(self.config.eval_every, evaluate)}
