"""Updates that are not finite, skipped: nothing but the step's number moves, and they are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2i_jax import runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.loop import parallel, train


def broken_at(*steps, gradient_alone=False):
    """The loss of `toys.line`, times NaN at some steps; counts its calls in a variable."""

    def loss_fn(params, variables, batch, *, step, rngs, train):
        factor = jnp.where(jnp.isin(step, jnp.array(steps)), jnp.nan, 1.0)
        loss, (_, metrics) = toys.line(params, variables, batch, step=step, rngs=rngs, train=train)
        shown = loss if gradient_alone else factor * loss
        variables = {"counts": {"calls": variables["counts"]["calls"] + 1}} if variables else variables
        return factor * loss, (variables, metrics | {"loss": shown})

    return loss_fn


def built_of(loss_fn, **changes):
    config = toys.loop_config(ema=0.5, **changes)
    variables = {"counts": {"calls": np.zeros(1, np.float32)}}
    built = parallel.make(toys.Toy(config, (loss_fn,), {"weight": np.zeros(1, np.float32)}, variables))
    return built, built.place(built.init())


def leaves_of(state):
    return [np.array(x) for x in jax.tree.leaves(state.replace(step=()))]


@pytest.mark.parametrize("gradient_alone", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_skipped_update_moves_nothing_but_the_step(kind, gradient_alone):
    built, state = built_of(broken_at(1, gradient_alone=gradient_alone), skip_nonfinite=1, parallel=kind)
    states = []
    for number in range(3):
        state, metrics = built.step(state, toys.BATCH)
        states.append(leaves_of(built.gather(state)))
        assert bool(metrics["skipped"]) == (number == 1)
        assert int(built.gather(state).step) == number + 1
    for before, after, later in zip(*states, strict=True):
        assert before.tobytes() == after.tobytes()
        assert not np.array_equal(after, later)


def test_an_update_that_overflows_after_a_finite_loss_is_skipped():
    optim = toys.loop_config().optim.to_dict() | {"lr": 3e38, "weight_decay": 3e38, "schedule": "constant"}
    built, state = built_of(broken_at(9), skip_nonfinite=1, optim=optim)
    before = leaves_of(state)
    state, metrics = built.step(state, toys.BATCH)
    assert np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all()
    assert metrics["skipped"]
    assert [x.tobytes() for x in leaves_of(state)] == [x.tobytes() for x in before]


def test_without_it_nothing_is_computed():
    programs = {skip: str(built_of(toys.line, skip_nonfinite=skip)[0].trace(4).jaxpr) for skip in (0, 1)}
    assert "is_finite" in programs[1]
    assert "is_finite" not in programs[0]
    assert programs[1].count("select_n") > programs[0].count("select_n")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(broken steps, folder, during, **changes)` trains a line; steps are counted from 0."""

    def call(*steps, folder="run", during=lambda weight: None, **changes):
        def make(config):
            task = toys.LoopToy(config, during)
            task._losses = (broken_at(*steps),)
            return task

        monkeypatch.setattr(tasks, "make", make)
        train.train(toys.loop_config(**changes), tmp_path / folder)
        return tmp_path / folder

    return call


def scalars_of(folder, name):
    events = EventAccumulator(str(folder / "logs")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_they_are_counted_and_said_once(run, capfd):
    folder = run(1, 2, 4, skip_nonfinite=2, log_every=4)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    assert said == [
        "warning: loss is nan, gradient norm nan at step 2: skipped; up to 2 in a row are (config.skip_nonfinite),"
        " and counted in the log as train/skipped"
    ]
    counts = scalars_of(folder, "train/skipped")
    assert [step for step, _ in counts] == [2, 3, 4, 6]  # also at each save and evaluation
    assert [count for _, count in counts] == [1, 1, 0, 1]
    assert np.isfinite([value for _, value in scalars_of(folder, "train/loss")]).all()
    assert [step for step, _ in scalars_of(folder, "train/loss")] == [2, 4, 6]  # not where all were skipped


def test_one_more_in_a_row_stops_as_without_it(run, tmp_path):
    with pytest.raises(
        UserError,
        match=r"^loss is nan, gradient norm nan at step 5, after 2 skipped in a row \(config.skip_nonfinite\); last"
        r" good checkpoint: step 4; lower config.optim.lr",
    ):
        run(2, 3, 4, skip_nonfinite=2)
    assert runs.checkpoint_steps(tmp_path / "run") == [4, 2]
    weights = [runs.load_weights(tmp_path / "run" / runs.WEIGHTS)[0]["weight"]]
    with pytest.raises(UserError, match=r"at step 3; last good checkpoint: step 2"):
        run(2, folder="off")
    weights.append(runs.load_weights(tmp_path / "off" / runs.WEIGHTS)[0]["weight"])
    np.testing.assert_array_equal(*weights)  # of step 4 and 2: nothing moved in between


def test_it_can_be_switched_on_in_a_run_that_stopped_and_ends_as_if_it_had_been_on(run, tmp_path):
    with pytest.raises(UserError, match="step 4"):
        run(3)
    train.train(toys.loop_config(skip_nonfinite=1), tmp_path / "run", accept_config_change=True)
    run(3, folder="whole", skip_nonfinite=1)
    for name in (runs.WEIGHTS, runs.CONFIG):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
