"""Can a config learn anything? It is trained on one batch of captions until their tokens come back."""

import tempfile
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from t2i_jax import progress, runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.loop import setup
from t2i_jax.random import stream

STEPS = 600  # at most
EVERY = 50  # steps between two looks
ENOUGH = 0.99  # share of tokens that must come back
SUSPECTS = (
    "the learning rate first (config.optim.lr {lr:g}; try a tenth of it, then ten times), then warm-up (here"
    " {warmup} steps), then a model too small for its tokens, then tokens that do not belong to their captions"
)


def measure(config, count: int) -> dict:
    """Train on `count` captions, without regularisation, and sample their tokens greedily.

    Args:
      config: of a model that is sampled from captions; the parents it names must be trained.
      count: captions, all different.

    Returns:
      `right`, the fraction of tokens that come back, after `steps` steps with the training `loss` (nats a token);
      `count`, the captions.

    Raises:
      UserError: a config without captions, a parent that is not trained, or too few different captions.
    """
    if count < 1:
        raise UserError(f"--overfit {count} is below 1; give a number of captions")
    for name, (_, run) in runs.parents(config).items():
        if not (Path(run) / runs.WEIGHTS).exists():
            raise UserError(
                f"the {name} {run} is not trained; train it first, or name another with"
                f" --config.parents.{name}.run=RUN"
            )
    task = tasks.make(_unregularised(config, count))
    if task.recall is None:
        raise UserError(f"--overfit of {config.name}: give the config of a model that is sampled from captions")
    with tempfile.TemporaryDirectory() as folder:
        task.check(Path(folder))
        parents = {name: tasks.open_run(run) for name, (_, run) in runs.parents(config).items()}
        batch = _examples(task.prepare(Path(folder), parents), count)
        built = setup.Setup(task)
        state, right = built.start(), 0.0
        for number in progress.bar(range(1, STEPS + 1), f"{count} captions of {config.name}"):
            state, metrics = built.step(state, batch)
            if number % EVERY == 0:
                right = task.recall(state.params, batch, stream(config.seed, "sample"))
                if right == 1:
                    break
    return {"right": right, "steps": number, "loss": float(metrics["loss"]), "count": count}


def report(config, count: int) -> str:
    """`measure` as text, with a verdict."""
    found = measure(config, count)
    line = (
        f"{found['right']:.1%} of the tokens of {count} captions came back, after {found['steps']} steps, at"
        f" {found['loss']:.4f} nats a token"
    )
    if found["right"] >= ENOUGH:
        return f"{line}\nverdict: it can learn"
    suspects = SUSPECTS.format(lr=config.optim.lr, warmup=min(config.optim.warmup, EVERY))
    return f"{line}; {ENOUGH:.0%} should\nverdict: it cannot learn these; suspect {suspects}"


def _unregularised(config, count: int):
    """The config without dropout, noise, decay or averages, on one batch that the devices can share."""
    config = config.copy_and_resolve_references()
    config.unlock()
    devices = jax.device_count()
    config.batch_size, config.accumulate, config.ema = -(-count // devices) * devices, 1, 0.0
    config.optim.warmup, config.optim.schedule, config.steps = min(config.optim.warmup, EVERY), "cosine", STEPS
    config.optim.restarts, config.optim.weight_decay = (), 0.0
    if config.sampling:  # greedily, without guidance: no caption is dropped
        config.sampling = {"name": config.sampling.name}
    _switch_off(config.model)
    _switch_off(config.data)
    return config.lock()


def _switch_off(fields) -> None:
    """Set every dropout and noise in a tree of fields to 0."""
    for name, value in fields.items():
        if isinstance(value, ConfigDict):
            _switch_off(value)
        elif name.endswith(("dropout", "noise")):
            fields[name] = 0.0


def _examples(data, count: int) -> dict:
    """Arrays of the first examples whose captions differ, repeated to fill the batch."""
    found = {}
    for i in range(len(data.splits["train"])):
        example = data.transform(data.splits["train"][i], np.random.default_rng(0))
        found.setdefault(example["text_ids"].tobytes(), example)
        if len(found) == count:
            break
    if len(found) < count:
        raise UserError(f"--overfit {count}: the data has {len(found)} different captions; give at most that many")
    devices = jax.device_count()
    rows = list(found.values())
    rows += rows[:1] * (-count % devices)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
