"""`config.matmul`: every product of a step, what "auto" takes, and that a run goes on as it began."""

import json

import jax
import jax.numpy as jnp
import pytest
import toys
from fakes import fake_batch

from t2i_jax import runs, tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import matmul, parallel, train


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


def built(kind, name):
    config = load_config(f"{name}:smoke", [f"--config.matmul={kind}", "--config.optim.muon=0"])
    return parallel.make(tasks.make(config))


@pytest.mark.parametrize("name", ["translator", pytest.param("dalle", marks=pytest.mark.slow)])
def test_every_product_of_a_step_has_factors_of_that_type(name):
    one, two = (built(kind, name) for kind in ("float32", "bfloat16"))
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


def test_the_gain_is_a_ratio_of_times():
    assert 0.01 < matmul.gain() < 100


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
