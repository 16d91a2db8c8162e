"""Can a config learn anything? It is trained on one batch until captions' tokens, or pictures, come back."""

import tempfile
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from t2i_jax import progress, runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.loop import matmul, setup
from t2i_jax.random import stream

STEPS = 600  # at most
EVERY = 50  # steps between two looks
REGULARISERS = "dropout", "noise", "kl_weight", "adversarial"  # ends of the names of fields
SUSPECTS = (
    "the learning rate first (config.optim.lr {lr:g}; try a tenth of it, then ten times), then warm-up (here"
    " {warmup} steps), then {others}"
)


def measure(config, count: int) -> tuple[dict, tasks.Overfit]:
    """Train on `count` examples, without regularisation, and see what of them comes back.

    Args:
      config: of a model that is sampled from captions, or of an image tokenizer; the parents it names must be
        trained.
      count: captions or pictures, all different.

    Returns:
      `value`, the share of tokens or the PSNR that `goal` (an `Overfit`) measures, after `steps` steps with the
      training `loss`; `count`; whether it `learns`. And the goal.

    Raises:
      UserError: a config of neither, a parent that is not trained, or too few different examples.
    """
    if count < 1:
        raise UserError(f"--overfit {count} is below 1; give a number of captions or pictures")
    for name, parent in config.get("parents", {}).items():
        run = parent.run or runs.parent_folder(config.init_from, name)
        if not (Path(run) / runs.WEIGHTS).exists():
            raise UserError(
                f"the {name} {run} is not trained; train it first, or name another with"
                f" --config.parents.{name}.run=RUN"
            )
    matmul.settle(config)
    task = tasks.make(_unregularised(config, count))
    goal = task.overfit
    if goal is None:
        raise UserError(
            f"--overfit of {config.name}: give the config of a model that is sampled from captions, or of an image"
            " tokenizer"
        )
    with tempfile.TemporaryDirectory() as folder:
        task.check(Path(folder))
        runs.adopt_parents(config, Path(folder))
        parents = {name: tasks.open_run(run) for name, (_, run) in runs.parents(config, folder).items()}
        batch = _examples(task.prepare(Path(folder), parents), goal, count)
        built = setup.Setup(task)
        state, value, every = built.start(), 0.0, config.codebook_reset_every
        for number in progress.bar(range(1, STEPS + 1), f"{count} {goal.examples} of {config.name}"):
            if task.between_steps and every and number % every == 0:
                state = built.between_steps(state, batch, number)
            state, metrics = built.step(state, batch)
            if number % EVERY == 0:
                value = goal.measure(state.params, state.variables, batch, stream(config.seed, "sample"))
                if value >= goal.enough:
                    break
    found = {"value": float(value), "steps": number, "loss": float(metrics["loss"]), "count": count}
    return found | {"learns": bool(value >= goal.enough)}, goal


def report(config, count: int) -> tuple[str, dict]:
    """`measure` as text, with a verdict, and as a dict."""
    found, goal = measure(config, count)
    line = goal.shown.format(found["value"], count)
    line += f", after {found['steps']} steps, at a loss of {found['loss']:.4f}"
    if found["learns"]:
        return f"{line}\nverdict: it can learn", found
    warmup = min(config.optim.warmup, EVERY)
    suspects = SUSPECTS.format(lr=config.optim.lr, warmup=warmup, others=goal.suspects)
    return f"{line}; {goal.wanted} should be reached\nverdict: it cannot learn these; suspect {suspects}", found


def _unregularised(config, count: int):
    """The config without what keeps it from learning by heart, on one batch that the devices can share."""
    config = config.copy_and_resolve_references()
    config.unlock()
    devices = jax.device_count()
    config.batch_size, config.accumulate, config.ema = -(-count // devices) * devices, 1, 0.0
    config.optim.warmup, config.optim.schedule, config.steps = min(config.optim.warmup, EVERY), "cosine", STEPS
    config.optim.restarts, config.optim.weight_decay = (), 0.0
    if config.sampling:  # greedily, without guidance: no caption is dropped
        config.sampling = {"name": config.sampling.name}
    for fields in (config.model, config.data, config.loss):
        _switch_off(fields)
    return config.lock()


def _switch_off(fields) -> None:
    """Set everything in a tree of fields to 0 that keeps a model from learning examples by heart."""
    for name, value in fields.items():
        if isinstance(value, ConfigDict):
            _switch_off(value)
        elif name.endswith(REGULARISERS):
            fields[name] = 0.0


def _examples(data, goal, count: int) -> dict:
    """Arrays of the first examples that differ, repeated to fill the batch."""
    found = {}
    for i in range(len(data.splits["train"])):
        example = data.transform(data.splits["train"][i], np.random.default_rng(0))
        found.setdefault(example[goal.array].tobytes(), example)
        if len(found) == count:
            break
    if len(found) < count:
        raise UserError(
            f"--overfit {count}: the data has {len(found)} different {goal.examples}; give at most that many"
        )
    devices = jax.device_count()
    rows = list(found.values())
    rows += rows[:1] * (-count % devices)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
