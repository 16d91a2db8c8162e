"""What the loop says of its own speed, the trace of steps, and that neither changes what is trained."""

import gzip
import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2i_jax import runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.loop import parallel, speed, train
from t2i_jax.loop.flops import flops_of

STEPS = {"steps": 6, "eval_every": 6, "checkpoint_every": 6}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run("folder", profile, **changes)` trains the toy task; returns the run folder."""
    monkeypatch.setattr(tasks, "make", toys.LoopToy)

    def call(folder, profile=None, **changes):
        config = toys.loop_config(**(STEPS | changes))
        train.train(config, tmp_path / folder, accept_config_change=True, profile=profile)
        return tmp_path / folder

    return call


def scalars(folder):
    events = EventAccumulator(str(folder / "logs")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


class Device:
    device_kind = "NVIDIA H200"

    def memory_stats(self):
        return {"peak_bytes_in_use": 3_000_000_000}


def test_speed_use_and_memory_are_logged(run, monkeypatch):
    devices = {"devices": lambda: [Device()], "local_devices": lambda: [Device(), Device()]}
    monkeypatch.setattr(speed, "jax", SimpleNamespace(**(vars(jax) | devices)))
    monkeypatch.setattr(speed, "flops_of", lambda jaxpr: 989e12 * jax.device_count())
    logged = scalars(run("run", log_every=3))
    rates = logged["speed/examples_per_second"]
    assert [step for step, _ in rates] == [3, 6]  # at log steps alone
    assert all(rate > 0 for _, rate in rates)
    for (_, rate), (_, mfu) in zip(rates, logged["speed/mfu"], strict=True):
        assert mfu == pytest.approx(rate / 4)  # a step of 4 examples takes a second of the peak
    assert logged["memory/peak_gigabytes"] == [(3, 3.0), (6, 3.0)]


def test_of_unknown_devices_speed_alone(run):
    names = scalars(run("run")).keys()
    assert {name for name in names if name.startswith(("speed/", "memory/"))} == {"speed/examples_per_second"}


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time."""
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    return now


def test_saving_and_the_first_step_are_no_training(clock):
    built = parallel.make(toys.LoopToy(toys.loop_config()))
    meter = speed.Speed(built)
    clock[0] = 100.0  # the first step, which compiles
    meter.start()
    assert meter.look() == {}
    for pause in (0.0, 1000.0):
        clock[0] += 2.0
        meter.step()
        with meter.paused():
            clock[0] += pause
    assert meter.look() == {"speed/examples_per_second": 2 * 4 / 4.0}
    clock[0] += 1.0
    meter.step()
    assert meter.look() == {"speed/examples_per_second": 4.0}


def test_the_loop_counts_no_evaluation(tmp_path, monkeypatch, clock):
    def during(weight):
        clock[0] += 1000.0

    def slow(self, step, metrics):
        clock[0] += 1.0
        push(self, step, metrics)

    push = train.Metrics.push
    monkeypatch.setattr(tasks, "make", lambda config: toys.LoopToy(config, during))
    monkeypatch.setattr(train.Metrics, "push", slow)
    train.train(toys.loop_config(**(STEPS | {"eval_every": 2, "log_every": 6})), tmp_path / "run")
    rates = scalars(tmp_path / "run")["speed/examples_per_second"]
    assert rates[1:] == [(4, 4.0), (6, 4.0)]


def test_start_counts_what_is_compiling(clock):
    with speed.Start() as start:
        clock[0] += 9.0
        jax.monitoring.record_event_duration_secs(speed.COMPILING, 3.25)
        jax.monitoring.record_event_duration_secs("/jax/another", 100.0)
    jax.monitoring.record_event_duration_secs(speed.COMPILING, 100.0)
    assert start.describe() == "first step after 9.0 s, 3.2 s of them compiling"


def test_a_run_compiles_its_step_once(run, caplog):
    """When it begins, and when it goes on from a checkpoint."""
    for steps in (3, 6):
        caplog.clear()
        with jax.log_compiles():
            run("run", steps=steps)
        compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
        assert compiled.count("train_step") == 1
        assert compiled.count("_create") == (steps == 3)


def test_jax_reports_what_it_compiles():
    with speed.Start() as start:
        jax.jit(lambda x: x * 3 + 1)(1.0)
    assert start._compiling > 0


def test_the_first_step_is_announced_once(run, capfd):
    run("run")
    (line,) = re.findall(r"first step after \d+\.\d s, \d+\.\d s of them compiling", capfd.readouterr().err)
    assert float(line.split()[3]) >= float(line.split()[5])


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_the_step_of_every_kind_is_counted(kind):
    def product(params, variables, batch, *, step, rngs, train):
        loss = jnp.mean((batch["x"] @ params["kernel"] - batch["y"]) ** 2)
        return loss, (variables, {"loss": loss})

    task = toys.Toy(toys.loop_config(parallel=kind), (product,), {"kernel": np.ones((1, 1), np.float32)})
    assert flops_of(parallel.make(task).trace(4).jaxpr) == 2 * (2 * 4)  # forward, and for the kernel


def test_a_profile_is_written_and_changes_no_bit(run):
    plain, traced = run("plain"), run("traced", (2, 3))
    for name in (runs.WEIGHTS, runs.SCORES):
        assert (traced / name).read_bytes() == (plain / name).read_bytes()
    assert scalars(traced)["train/loss"] == scalars(plain)["train/loss"]
    assert not list(plain.rglob("*.xplane.pb"))
    assert len(list((traced / "logs" / "plugins" / "profile").glob("*/*.xplane.pb"))) == 1  # for TensorBoard
    (perfetto,) = traced.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert {int(step) for step in steps} == {2, 3}


def test_a_profile_ends_with_a_run_that_fails(run, tmp_path, monkeypatch):
    def fail(self, step, metrics):
        raise UserError("not finite")

    monkeypatch.setattr(train.Metrics, "push", fail)
    with pytest.raises(UserError, match="not finite"):
        run("run", (1, 5))
    assert list((tmp_path / "run").rglob("*.xplane.pb"))


def test_a_step_that_is_done_cannot_be_traced(run):
    run("run", steps=4)
    with pytest.raises(UserError, match="--profile 4:5 begins at a step that is done; give a FIRST above 4"):
        run("run", (4, 5))


@pytest.mark.parametrize("given", ["10", "2:1", "0:1", "1:3", "a:b", "1:2:3", "-1:2", ":"])
def test_a_range_that_cannot_be_is_one_line(command, given):
    code, lines = command("--config=patch_vqvae:smoke", f"--profile={given}")
    expected = (
        f"train.py: --profile {given} is no FIRST:LAST with 1 <= FIRST <= LAST <= 2 (config.steps), as in 1:2"
    )
    assert (code, lines) == (2, [expected])
