"""Weights & Biases, by a package that stands in for theirs: it gets what the events have, and is not missed."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from t2i_jax.loop.events import read_scalars


@pytest.fixture
def wandb(monkeypatch):
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.calls, module.begun, module.logged, module.ended = 0, [], [], []

    def log(values, step):
        module.calls += 1
        if module.calls == getattr(module, "fails_at", 0):
            raise RuntimeError("no route to host")
        module.logged.append((step, values))

    def init(**options):
        module.begun.append(options)
        return SimpleNamespace(log=log, finish=lambda exit_code: module.ended.append(exit_code))

    module.init, module.Settings = init, dict
    module.Image, module.Histogram = (lambda x, kind=kind: (kind, x.shape) for kind in ("image", "histogram"))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def train(command, data_dir, tmp_path):
    argv = ["--config=configs/patch_vqvae.py:smoke", f"--workdir={tmp_path / 'run'}"]
    return lambda *more: command(*argv, f"--config.data.data_dir={data_dir}", "--config.wandb=digits", *more)


@pytest.mark.slow
def test_it_gets_what_the_events_have_and_a_stopped_run_continues_in_it(wandb, train, tmp_path):
    code, lines = train()
    assert code == 0, lines
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["resume"]) == ("digits", "run", "allow")
    assert begun["config"]["optim"]["warmup"] == 1
    got = {(step, name): value for step, values in wandb.logged for name, value in values.items()}
    scalars, _ = read_scalars(tmp_path / "run")
    numbers = {key: value for key, value in got.items() if isinstance(value, float)}
    events = {(step, tag): value for tag, own in scalars.items() for step, value in own.items()}
    assert numbers == pytest.approx(events, rel=1e-6)
    assert {step for step, name in got if name == "reconstructions" and got[step, name][0] == "image"} == {1, 2}
    assert wandb.ended == [0]
    code, lines = train("--config.steps=3", "--accept-config-change")
    assert code == 0, lines
    assert wandb.begun[1]["id"] == begun["id"]
    assert {step for step, _ in wandb.logged[len(got) :]} <= {3}


def test_several_numbers_are_a_histogram(wandb, tmp_path):
    from ml_collections import ConfigDict

    from t2i_jax.loop.weights_and_biases import Log

    (tmp_path / "logs").mkdir()
    log = Log(ConfigDict({"wandb": "x"}), tmp_path)
    log.write(1, {"a": np.float32(2), "b": np.ones(3), "c": np.zeros((4, 4, 3), np.uint8)})
    assert wandb.logged == [(1, {"a": 2.0, "b": ("histogram", (3,)), "c": ("image", (4, 4, 3))})]


@pytest.mark.slow
def test_what_fails_in_it_does_not_fail_the_run(wandb, train, tmp_path):
    wandb.fails_at = 2
    code, lines = train()
    assert code == 0, lines
    said = [line for line in lines if line.startswith("warning: ")]
    assert said == ["warning: Weights & Biases gets no more of this run: no route to host"]
    assert wandb.calls == 2
    assert len(read_scalars(tmp_path / "run")[0]["train/loss"]) == 2


def test_without_a_login_it_is_one_line(wandb, train):
    def init(**_):
        raise RuntimeError("api_key not configured (no-tty)")

    wandb.init = init
    code, lines = train()
    assert code == 2
    assert lines[-1].startswith(
        "train.py: config.wandb digits: api_key not configured (no-tty); way out: wandb login,"
    )


def test_without_its_package_it_is_one_line_before_anything_else(train, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train() == (
        2,
        ["train.py: config.wandb digits needs its package: pip install wandb; or leave it empty"],
    )
    assert not (tmp_path / "run").exists()
