"""The loop on a toy task: what is saved when, and what a signal or a failing evaluation leaves."""

import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
import toys

from t2i_jax import files, runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.evals import report
from t2i_jax.loop import events, train
from t2i_jax.loop.metrics import AHEAD, Metrics
from t2i_jax.loop.setup import Setup


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(during, **changes)` trains in `tmp_path / "run"` and returns the task."""

    def call(during=lambda weight: None, folder="run", **changes):
        made = []
        monkeypatch.setattr(tasks, "make", lambda config: made.append(toys.LoopToy(config, during)) or made[-1])
        train.train(toys.loop_config(**changes), tmp_path / folder)
        return made[-1]

    return call


def state_of(folder):
    return {name: (folder / name).read_bytes() for name in (runs.WEIGHTS, runs.SCORES, runs.CONFIG)}


def test_it_trains_saves_and_scores(run, tmp_path):
    task = run()
    assert len(task.evaluated) == 2  # at steps 3 and 6
    assert runs.checkpoint_steps(tmp_path / "run") == [6, 4]
    assert files.read_json(tmp_path / "run" / runs.SCORES)["step"] == 6
    assert run().evaluated == []  # finished


def test_an_evaluation_that_fails_loses_nothing(run, tmp_path):
    """The state is saved first; the same command then evaluates, and trains no step again."""
    seen = []

    def fail(weight):
        seen.append(weight)
        if len(seen) == 2:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(fail)
    assert runs.checkpoint_steps(tmp_path / "run") == [6, 4]
    assert run().evaluated == seen[1:]
    run(folder="whole")
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


@pytest.mark.parametrize("at", [1, 2], ids=["not saved yet", "saved"])
def test_a_signal_in_an_evaluation_stops_at_once(run, tmp_path, at, capfd):
    """After saving, where the step was not saved yet; and the run ends as if it had never been stopped."""
    seen, after = [], []

    def stop(weight):
        seen.append(weight)
        if len(seen) == at:
            signal.raise_signal(signal.SIGTERM)
            after.append(weight)

    with pytest.raises(SystemExit) as stopped:
        run(stop)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not after  # the evaluation was left where it stood
    said = capfd.readouterr().err
    assert "stopping: saving after this step" in said
    assert f"stopped: saved step {3 * at} in {tmp_path / 'run'}; the same command continues" in said
    assert runs.checkpoint_steps(tmp_path / "run")[0] == 3 * at
    run()
    run(folder="whole")
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


def test_a_run_that_failed_before_its_first_step_takes_the_corrected_config(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(toys.LoopToy, "init", refuse)
        with pytest.raises(UserError, match="no room"):
            run(steps=9)
    run()
    assert runs.read_config(tmp_path / "run").steps == 6
    with pytest.raises(UserError, match="was started with another config"):
        run(steps=9)


def refuse(self, key, batch):
    raise UserError("no room")


def test_a_second_signal_stops_at_once(run, tmp_path, monkeypatch):
    def push(self, step, metrics):
        # In this thread: two that are sent to the process may come as one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Metrics, "push", push)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert runs.checkpoint_steps(tmp_path / "run") == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_between_save_and_log_costs_no_step(run, tmp_path, monkeypatch):
    """It comes too late for step 1, which is not saved, so the next step is."""
    flush, sent = Metrics.flush, []

    def flush_and_stop(self, last_good):
        means = flush(self, last_good)
        if not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)
        return means

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "flush", flush_and_stop)
        with pytest.raises(SystemExit):
            run(checkpoint_every=6, eval_every=6)
    assert runs.checkpoint_steps(tmp_path / "run") == [2]
    run(checkpoint_every=6, eval_every=6)
    run(folder="whole", checkpoint_every=6, eval_every=6)
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


def test_a_step_fetches_nothing_from_the_host(run, monkeypatch):
    monkeypatch.setattr(Setup, "split_batch", lambda self, batch: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        run()


def test_few_steps_run_ahead(tmp_path):
    step = jax.jit(lambda x: jax.lax.fori_loop(0, 30, lambda _, y: jnp.sin(y @ y), x).sum())
    jax.block_until_ready(step(jnp.ones((300, 300))))
    with Metrics(tmp_path, 0) as metrics:
        losses = []
        for number in range(6):
            losses.append(step(jnp.full((300, 300), number / 7)))
            metrics.push(number, {"loss": losses[-1]})
            assert all(loss.is_ready() for loss in losses[:-AHEAD])


def test_a_judge_rates_at_steps_of_its_own(smoke, tmp_path, monkeypatch):
    seeds = []

    def rater(pipe, seed):
        assert pipe(["a red seven"], num_images=1).shape == (1, 1, 32, 32, 3)
        seeds.append(seed)
        return lambda sampler: (0.5, (0.25, 0.75)) if sampler == pipe.sampling else None

    monkeypatch.setattr(report, "judge_of", lambda data: SimpleNamespace(rater=rater))
    config = smoke.config("translator")
    config.judge_every = 2  # eval_every is 1
    train.train(config.lock(), tmp_path / "run")
    assert seeds == [1000]  # not the prompts of `t2i evaluate`
    scores = files.read_json(tmp_path / "run" / runs.SCORES)
    assert (scores["judged"], scores["judged_low"], scores["judged_high"]) == (0.5, 0.25, 0.75)
    curves, _ = events.read_scalars(tmp_path / "run")
    assert [len(curves[f"validation/{name}"]) for name in ("nats", "judged")] == [2, 1]


@pytest.mark.parametrize(
    ("data", "every", "said"),
    [
        ("captioned_digits/tiny", 3, "config.judge_every 3 is no multiple of config.eval_every 2; give one"),
        ("cifar10", 2, "pictures of cifar10 have no judge; only those of captioned_digits, "),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_else(smoke, tmp_path, data, every, said):
    config = smoke.config("translator")
    config.data.name, config.judge_every, config.eval_every = data, every, 2
    with pytest.raises(UserError, match=said):
        tasks.make(config).check(tmp_path)


def test_a_judge_needs_captions(smoke, tmp_path):
    config = smoke.config("prior")
    config.judge_every, config.model.conditional = 1, False
    with pytest.raises(UserError, match="judge_every 1 asks for pictures of captions, which this model"):
        tasks.make(config).check(tmp_path)
