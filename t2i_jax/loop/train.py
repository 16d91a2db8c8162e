"""The whole loop, top to bottom."""

import signal
import sys
from contextlib import nullcontext
from functools import partial
from importlib import import_module

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax import files, models, runs
from t2i_jax.data import pipeline
from t2i_jax.errors import UserError
from t2i_jax.loop import sharding
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.metrics import Metrics
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State
from t2i_jax.loop.step import check_step, make_step
from t2i_jax.random import stream
from t2i_jax.sampling.settings import Sampling


def train(config, workdir, *, accept_config_change: bool = False) -> None:
    """Train to `config.steps`, from the newest checkpoint where there is one.

    Args:
      config: an experiment of configs/.
      workdir: run folder.
      accept_config_change: continue a run that was started with another config.

    Raises:
      UserError: bad config, a folder that cannot be used, or a loss that is not finite.
      SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    check_config(config)
    folder = runs.make_folder(workdir)
    with files.lock(folder) if jax.process_index() == 0 else nullcontext():
        changed = runs.check_config_change(folder, config, accept=accept_config_change)
        if runs.is_finished(folder, config):
            if changed:
                runs.write_config(folder, config)
            print(f"{folder} is finished", file=sys.stderr)
        else:
            train_locked(config, folder, accept_config_change)


def train_locked(config, folder, accept_config_change):
    """`train` in a run folder that is this process's own."""
    print(f"training {config.name} in {folder}", file=sys.stderr)
    line, warning = sharding.describe_devices()
    print(line + (f"\nwarning: {warning}" if warning else ""), file=sys.stderr)

    checkpoints = Checkpoints(folder, config.keep_checkpoints)
    if checkpoints.latest is None:
        runs.check_new(folder)
        runs.write_config(folder, config)
    task = import_module(f"t2i_jax.tasks.{config.task}")
    model = models.build(config)
    train_first = partial(train, accept_config_change=accept_config_change)
    stage = import_module(f"t2i_jax.stages.{config.task}").prepare(
        config, folder, task, model, train_first=train_first, accept=accept_config_change
    )
    checkpoints.made_from = stage.made_from
    batches = pipeline.train_stream(
        stage.splits["train"],
        stage.transform,
        batch_size=config.batch_size,
        seed=config.seed,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )

    example = stage.transform(stage.splits["train"][0], np.random.default_rng(0))
    example = {name: np.asarray(value)[None] for name, value in example.items()}
    try:
        variables = jax.jit(partial(task.init, model))(stream(config.seed, "init"), example)
    except (ValueError, TypeError) as error:  # models say so where their fields do not fit each other
        raise UserError(f"config.model: {str(error).splitlines()[0]}") from error
    params = variables.pop("params")
    optimizer = make_optimizer(config.optim, config.steps, stage.frozen)
    loss_fn = partial(task.loss_fn, model, **config.loss)
    state = State.create(params, variables, optimizer, config.ema)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    upkeep = jax.jit(partial(task.upkeep, model)) if config.upkeep_every else None

    if checkpoints.latest is None:
        params, variables = stage.start(params, variables)
        state = State.create(params, variables, optimizer, config.ema)
    else:
        state, batches = checkpoints.restore(state, batches)
        print(f"continuing from step {int(state.step)}", file=sys.stderr)
        runs.write_config(folder, config)
        # Whatever became of the weights' file since: it follows the checkpoint.
        runs.warn_of_newer_weights(folder, int(state.step))
        runs.write_weights(folder, state.eval_params, state.variables, int(state.step))
    first = int(state.step)
    state = step.place(state)

    with Metrics(folder, first) as metrics, Stop() as stop, progress(config, first) as bar:
        number = first
        for number in range(first + 1, config.steps + 1):
            batch = next(batches)
            if upkeep and number % config.upkeep_every == 0:
                state = step.upkeep(upkeep, state, batch, stream(config.seed, "upkeep", number))
            state, values = step(state, batch)
            metrics.push(number, values)
            last = number == config.steps or stop.requested
            save = last or number % config.checkpoint_every == 0
            if save or number % config.log_every == 0:
                means = metrics.flush(checkpoints.good)
                bar.set_postfix(loss=f"{means['loss']:.4f}", refresh=False)
            bar.update(config.batch_size)
            if number == config.steps or number % config.eval_every == 0:
                whole = step.gather(state)
                scores, grids = stage.evaluate(whole.eval_params, whole.variables)
                metrics.scalars(number, {f"validation/{name}": score for name, score in scores.items()})
                metrics.pictures(number, grids)
                runs.write_scores(folder, {"step": number, **scores})
                single = {name: score for name, score in scores.items() if np.ndim(score) == 0}
                shown = "  ".join(f"{name} {score:.3g}" for name, score in single.items())
                bar.write(f"step {number}: {shown}", file=sys.stderr)
            if save:
                whole = step.gather(state)
                checkpoints.save(whole, batches)
                runs.write_weights(folder, whole.eval_params, whole.variables, number)
            if last:  # not stop.requested: a signal since then has not been saved for
                break
    if stop.requested:
        print(f"stopped: saved step {number} in {folder}; the same command continues", file=sys.stderr)
        sys.exit(128 + stop.requested)


def check_config(config) -> None:
    """Find mistakes before minutes of preparation.

    Raises:
      UserError: a number out of its range, or a schedule, step or sampler that cannot be.
    """
    positive = (
        "steps",
        "batch_size",
        "accumulate",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
    )
    for name, least in [("seed", 0), ("upkeep_every", 0), *((name, 1) for name in positive)]:
        if config[name] < least:
            raise UserError(f"config.{name} {config[name]} is below {least}; give a whole number from {least} up")
    make_optimizer(config.optim, config.steps)
    check_step(config)
    Sampling(**config.sampling)


def progress(config, first: int) -> tqdm:
    """A bar that counts examples and shows loss, rate and time left."""
    size = config.batch_size
    return tqdm(
        total=config.steps * size,
        initial=first * size,
        desc=config.name,
        unit="items",
        unit_scale=True,
        disable=jax.process_index() > 0,
    )


class Stop:
    """Takes Ctrl-C and SIGTERM as a wish to stop after the running step; a second one stops at once."""

    def __init__(self):
        self.requested = 0

    def __enter__(self):
        self._before = {s: signal.signal(s, self._take) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number, frame):
        self.requested = number
        for s, handler in self._before.items():
            signal.signal(s, handler)
