"""The training loop, top to bottom."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax import files, hosts, progress, ranges, runs, tasks
from t2i_jax.data import pipeline
from t2i_jax.loop import continuing, matmul, parallel, setup, sharding, weights_and_biases
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.metrics import Metrics, check_finite
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.profile import Profile
from t2i_jax.loop.speed import Speed, Start
from t2i_jax.loop.stop import Stop, Stopped
from t2i_jax.tasks import Task, init_from


def train(
    config, workdir: str | Path, *, accept_config_change: bool = False, profile: tuple[int, int] | None = None
) -> None:
    """Train to `config.steps`, from the newest checkpoint where there is one; parents that are not finished first.

    Args:
      config: an experiment of configs/.
      workdir: run folder.
      accept_config_change: continue a run that was started with another config.
      profile: the first and the last of the steps to trace, 1 <= first <= last <= `config.steps`; not of parents.

    Raises:
      UserError: bad config, a folder that cannot be used, a loss that is not finite, or steps to trace that are
        done.
      SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    plan = list(_parents_first(config, Path(workdir)))
    planned = []
    for config, folder in plan:
        check_config(config)
        init_from.stamp(config, folder)
        matmul.settle(config, folder)
        task = tasks.make(config)
        task.check(folder)
        init_from.check(task, folder)
        planned.append((task, folder))
    for number, (task, folder) in enumerate(planned):
        last = number == len(planned) - 1
        if not last and continuing.is_finished(folder, task.config):
            continuing.check_same(folder, task.config, accept=accept_config_change)
            continue
        if not last:
            parallel.make(planned[-1][0])  # finds fields that do not fit before minutes of its parent's training
            print(f"{folder} has no finished run yet; training it first", file=sys.stderr)
        _train_run(task, folder, accept_config_change, profile if last else None)


def _parents_first(config, folder: Path) -> Iterator[tuple]:
    """`(config, folder)` of every run that a run builds on, parents first, and of the run itself."""
    for name, (parent, run) in runs.parents(config, folder).items():
        if config.parents[name].run:  # else it is a finished run's
            yield from _parents_first(parent, Path(run))
    yield config, folder


def _train_run(task: Task, workdir: Path, accept: bool, profile: tuple[int, int] | None) -> None:
    config, folder = task.config, runs.make_folder(workdir)
    with files.lock(folder) if hosts.is_first() else nullcontext(), Start() as start:
        continuing.check_config_change(folder, config, accept=accept)
        if continuing.is_finished(folder, config):
            runs.write_config(folder, config)
            print(f"{folder} is finished", file=sys.stderr)
            return
        print(f"training {config.name} in {folder}", file=sys.stderr)
        print(sharding.describe_devices(), file=sys.stderr)
        hosts.on_first(partial(runs.adopt_parents, config, folder))
        built_on = runs.parents(config, folder)
        parents = {name: tasks.open_run(run) for name, (_, run) in built_on.items()}
        checkpoints = Checkpoints(folder, config.keep_checkpoints)
        checkpoints.check_parents({name: (parent.digest, built_on[name][1]) for name, parent in parents.items()})
        checkpoints.parents = {name: parent.digest for name, parent in parents.items()}
        if checkpoints.latest is None:
            continuing.check_new(folder)
        data = task.prepare(folder, parents)

        def copy_parents():
            for name, (_, run) in built_on.items():
                if config.parents[name].run:
                    runs.copy_parent(Path(run), folder, name)

        hosts.on_first(copy_parents)
        batches = pipeline.train_stream(
            data.splits["train"],
            data.transform,
            batch_size=config.batch_size,
            seed=config.seed,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        sizes = {f"{split}_pictures": len(dataset) for split, dataset in data.splits.items()}
        _loop(task, folder, checkpoints, batches, start, profile, sizes)


def _loop(task: Task, folder: Path, checkpoints: Checkpoints, batches, start: Start, profile, sizes: dict) -> None:
    config, built = task.config, parallel.make(task)
    evaluators, speed = task.evaluators(), Speed(built)

    if checkpoints.latest is None:
        state = built.start()
    else:
        state, batches = checkpoints.restore(built.shapes, batches)
        print(f"continuing from step {int(state.step)}", file=sys.stderr)
    task.before_training(state.params)
    batches.start_prefetch()  # not before: what a batch holds may depend on the params
    runs.write_config(folder, config)
    first = int(state.step)
    if first:
        # Whatever became of the weights' file since: it follows the checkpoint.
        continuing.warn_of_newer_weights(folder, first)
        runs.write_weights(folder, state.eval_params, state.variables, first)
    state, tracer = built.place(state), Profile(folder / "logs", profile, first)

    second = partial(weights_and_biases.Log, config) if config.wandb else None
    log = Metrics(folder, first, config.skip_nonfinite, second)
    with log as metrics, Stop() as stop, _bar(config, first) as bar, tracer:

        def flush():
            if "loss" in (means := metrics.flush(checkpoints.good)):
                bar.set_postfix(loss=f"{means['loss']:.4f}", refresh=False)
            metrics.scalars(number, speed.look())

        def save(state):
            complete = built.gather(state)
            check_finite(complete, checkpoints.good)
            checkpoints.save(complete, batches)
            runs.write_weights(folder, complete.eval_params, complete.variables, int(complete.step))

        def evaluate(due, state, number, saved=True):
            """Whether it came to its end; a signal ends it at once, after a save where there was none."""
            scores, grids, complete = {}, {}, built.gather(state)
            try:
                with stop.at_once() if hosts.alone() else nullcontext():  # several hosts work together
                    for evaluator in due:
                        own_scores, own_grids = evaluator.evaluate(complete.eval_params, complete.variables)
                        scores, grids = scores | own_scores, grids | own_grids
            except Stopped:
                if not saved:
                    save(state)
                return False
            metrics.scalars(number, {f"validation/{name}": score for name, score in scores.items()})
            metrics.pictures(number, grids)
            runs.write_scores(folder, {"step": number, **sizes, **scores})
            single = {name: score for name, score in scores.items() if np.ndim(score) == 0}
            shown = "  ".join(f"{name} {score:.3g}" for name, score in single.items())
            bar.write(f"step {number}: {shown}", file=sys.stderr)
            return True

        def due_at(number):
            return [one for one in evaluators.values() if number >= config.steps or number % one.every == 0]

        number, going, asked = first, True, 0
        due = due_at(first) if first else []
        if due and runs.scored_step(folder) != first:  # stopped between save and scores
            going = evaluate(due, state, first)
        while going and number < config.steps:
            number += 1
            batch = next(batches)
            if task.between_steps and config.codebook_reset_every and number % config.codebook_reset_every == 0:
                state = built.between_steps(state, batch, number)
            tracer.before(number, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                state, values = built.step(state, batch)
            tracer.after(number, state)
            if number == first + 1:
                jax.block_until_ready(state)
                bar.write(start.describe(), file=sys.stderr)
                speed.start()
            else:
                speed.step()
            metrics.push(number, values)
            bar.update(config.batch_size)
            asked = hosts.largest(stop.requested) if number % config.log_every == 0 or hosts.alone() else 0
            last = number == config.steps or asked > 0
            saved = last or number % config.checkpoint_every == 0
            due = due_at(number)
            if saved or due or number % config.log_every == 0:
                flush()
            with speed.paused():
                if saved:
                    save(state)
                going = not last
                if due:
                    going = evaluate(due, state, number, saved) and going
    if asked := asked or stop.requested:
        print(f"stopped: saved step {number} in {folder}; the same command continues", file=sys.stderr)
        sys.exit(128 + asked)


def check_config(config) -> None:
    """Find mistakes before minutes of preparation.

    Raises:
      UserError: a number out of its range, or a schedule, mesh or batch that cannot be.
    """
    ranges.check_config(config)
    weights_and_biases.check(config)
    make_optimizer(config.optim, config.steps)
    sharding.make_mesh(config.mesh)
    setup.check_batch(config)
    parallel.kind(config)


def _bar(config, first: int) -> tqdm:
    """A bar that counts examples and shows loss, rate and time left."""
    size = config.batch_size
    return progress.bar(
        desc=config.name,
        total=config.steps * size,
        initial=first * size,
        unit="items",
        unit_scale=True,
        hidden=not hosts.is_first(),
    )
