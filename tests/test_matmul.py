"""`config.matmul`: every product of a step, what "auto" takes, and that a run goes on as it began."""

import json

import jax
import jax.numpy as jnp
import pytest
import toys
from fakes import fake_batch
from ml_collections import ConfigDict

from t2i_jax import runs, tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import continuing, dry_run, matmul, parallel, train


def factors(jaxpr, found=None):
    """Types of the factors of every product in a program, those of inner programs too."""
    found = [] if found is None else found
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(tuple(x.aval.dtype.name for x in equation.invars))
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                factors(inner, found)
    return found


def built(kind, name, *fields):
    given = (f"matmul={kind}", "optim.muon=0", *fields)
    config = load_config(f"{name}:smoke", [f"--config.{field}" for field in given])
    return parallel.make(tasks.make(config))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("translator", "model.decoder.width=48"),  # so that the memory is projected
        pytest.param("dalle", "seed=0", marks=pytest.mark.slow),
    ],
)
def test_every_product_of_a_step_has_factors_of_that_type(name, field):
    one, two = (built(kind, name, field) for kind in ("float32", "bfloat16"))
    counts = [factors(x.trace(x.config.batch_size).jaxpr.jaxpr) for x in (one, two)]
    assert len(counts[0]) == len(counts[1]) > 25
    assert set(counts[0]) == {("float32", "float32")}
    assert set(counts[1]) == {("bfloat16", "bfloat16")}


def test_a_step_is_nearly_that_of_float32():
    metrics = []
    for kind in ("float32", "bfloat16"):
        setup = built(kind, "translator")
        state, values = setup.step(setup.init(), fake_batch(setup.task, setup.config.batch_size))
        assert not any(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state))
        metrics.append(values)
    exact, near = metrics
    assert 0 < abs(near["loss"] - exact["loss"]) < 0.01
    assert 0 < abs(near["gradient_norm"] / exact["gradient_norm"] - 1) < 0.05


@pytest.mark.parametrize(("gain", "kind"), [(1.49, "float32"), (1.5, "bfloat16")])
def test_auto_takes_what_is_faster_by_half_and_says_so(tmp_path, monkeypatch, capsys, gain, kind):
    monkeypatch.setattr(matmul, "gain", lambda: gain)
    config = toys.config(matmul="auto")
    matmul.settle(config, tmp_path)
    assert config.matmul == kind
    said = f"config.matmul {kind}: products in bfloat16 are 1.5 times as fast as in float32 here\n"
    assert capsys.readouterr().err == said


def test_the_gain_says_how_much_faster_bfloat16_is(monkeypatch):
    assert 0.01 < matmul.gain() < 100
    seconds = {"float32": 6.0, "bfloat16": 2.0}
    monkeypatch.setattr(matmul, "_seconds", lambda function, x: seconds[x.dtype.name])
    assert matmul.gain() == 3


@pytest.mark.parametrize(("others", "kind"), [(0, "bfloat16"), (1, "float32")])
def test_all_hosts_must_gain(tmp_path, monkeypatch, others, kind):
    monkeypatch.setattr(matmul, "gain", lambda: 2.0)
    monkeypatch.setattr(matmul.hosts, "largest", lambda slow: max(slow, others))
    config = toys.config(matmul="auto")
    matmul.settle(config, tmp_path)
    assert config.matmul == kind


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^config.matmul 'fp8' is unknown; choose float32, bfloat16, auto$"):
        matmul.settle(toys.config(matmul="fp8"), tmp_path)


def test_a_run_goes_on_as_it_began(tmp_path, monkeypatch, capsys):
    """On whatever machine: the measurement of the first one stands."""
    monkeypatch.setattr(tasks, "make", toys.LoopToy)
    monkeypatch.setattr(matmul, "gain", lambda: 3.0)
    folder = tmp_path / "run"
    train.train(toys.loop_config(matmul="auto", steps=3), folder)
    assert json.loads((folder / runs.CONFIG).read_text())["matmul"] == "bfloat16"
    monkeypatch.setattr(matmul, "gain", lambda: 1.0)
    train.train(toys.loop_config(matmul="auto", steps=3), folder)
    assert json.loads((folder / runs.CONFIG).read_text())["matmul"] == "bfloat16"
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(UserError, match="matmul: bfloat16 -> float32"):
        train.train(toys.loop_config(steps=3), folder)


def test_an_unfinished_run_goes_on_as_it_began(tmp_path, monkeypatch):
    def stop(step):
        raise KeyboardInterrupt

    monkeypatch.setattr(matmul, "gain", lambda: 3.0)
    monkeypatch.setattr(tasks, "make", lambda config: toys.LoopToy(config, stop))
    with pytest.raises(KeyboardInterrupt):
        train.train(toys.loop_config(matmul="auto", steps=6), tmp_path / "run")
    monkeypatch.setattr(matmul, "gain", lambda: 1.0)
    monkeypatch.setattr(tasks, "make", toys.LoopToy)
    train.train(toys.loop_config(matmul="auto", steps=6), tmp_path / "run")
    assert json.loads((tmp_path / "run" / runs.CONFIG).read_text())["matmul"] == "bfloat16"


def test_a_run_from_before_there_was_such_a_field_did_float32(tmp_path):
    old, new = toys.loop_config().to_dict(), toys.loop_config(matmul="float32").to_dict()
    new["parents"] = {"one": {"config": {"matmul": "float32", "sampling": {"weight_bits": 32}}}}
    old["parents"] = {"one": {"config": {"sampling": {}}}}
    del old["matmul"]
    assert continuing.differences(old, new) == []
    new["parents"]["one"]["config"]["sampling"]["weight_bits"] = 8
    assert continuing.differences(old, new | {"matmul": "bfloat16"}) == [
        "matmul: float32 -> bfloat16",
        "parents.one.config.sampling.weight_bits: 32 -> 8",
    ]
    config = toys.config(matmul="auto")
    (tmp_path / runs.WEIGHTS).touch()
    runs.write_config(tmp_path, ConfigDict(old))
    matmul.settle(config, tmp_path)
    assert config.matmul == "float32"


def test_doctor_refuses_an_unknown_kind_and_settles_auto(monkeypatch, capsys):
    monkeypatch.setattr(matmul, "gain", lambda: 2.0)
    config = load_config("translator:smoke", ["--config.matmul=auto"])
    dry_run.measure(config)
    assert config.matmul == "bfloat16"
    with pytest.raises(UserError, match=r"^config\.matmul 'fp8' is unknown"):
        dry_run.measure(load_config("translator:smoke", ["--config.matmul=fp8"]))
