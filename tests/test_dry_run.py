"""What a config costs, known without training it."""

import json

import pytest
from fakes import SMOKE, fake_batch

from t2i_jax import cli, runs, tasks
from t2i_jax.config import load_config
from t2i_jax.data import pipeline
from t2i_jax.loop import dry_run


def test_counts_by_hand():
    """Of the VAE's smoke test: 8 latent units, width 4, 32 x 32 pixels."""
    config = load_config("configs/vae.py:smoke")
    found = dry_run.measure(config)
    features = (16 * 3 * 4 + 4) + (16 * 4 * 8 + 8)
    dense = 8 * 8 * 8
    decoder = (8 * dense + dense) + (16 * 8 * 4 + 4) + (16 * 4 * 3 + 3)
    assert found["parameters"] == {
        "features": features,
        "mu": dense * 8 + 8,
        "logvar": dense * 8 + 8,
        "decoder": decoder,
    }
    total = sum(found["parameters"].values())
    assert found["checkpoint"] == pytest.approx(3 * 4 * total, rel=0.01)  # with two moments each
    first = 16 * 16 * (16 * 3) * 4  # multiplications a picture
    products = (
        first + 8 * 8 * (16 * 4) * 8 + 2 * dense * 8 + 8 * dense + 8 * 8 * 8 * (16 * 4) + 16 * 16 * 4 * (16 * 3)
    )
    # Forward, and backward to inputs and to weights; nothing asks for the gradient of the pictures.
    assert found["flops"] == config.batch_size * 2 * (3 * products - first)
    assert found["state"] > found["checkpoint"]


@pytest.mark.slow
def test_micro_batches_save_scratch_and_no_arithmetic():
    whole, parts = (load_config("configs/translator.py:smoke").unlock() for _ in range(2))
    whole.batch_size = parts.batch_size = 64
    parts.accumulate = 4
    whole, parts = dry_run.measure(whole), dry_run.measure(parts)
    assert parts["scratch"] < 0.5 * whole["scratch"]
    assert parts["flops"] == whole["flops"]  # one update, by Muon too
    assert parts["checkpoint"] == whole["checkpoint"]


@pytest.mark.parametrize("name", SMOKE)
def test_batches_that_are_trained_on_have_the_shapes_of_the_tasks(name, smoke_config, tmp_path):
    """Those of the stream, and those that tests make up."""
    config = smoke_config(name)
    parents = {parent: tasks.open_run(run) for parent, (_, run) in runs.parents(config, name).items()}
    task = tasks.make(config)
    data = task.prepare(tmp_path, parents)
    batch = next(pipeline.train_stream(data.splits["train"], data.transform, batch_size=8, seed=0))
    expected = {key: (x.shape, x.dtype) for key, x in task.batch_spec(8).items()}
    assert {key: (x.shape, x.dtype) for key, x in batch.items()} == expected
    assert {key: (x.shape, x.dtype) for key, x in fake_batch(task, 8).items()} == expected


@pytest.mark.slow
def test_from_the_command_line(capsys):
    assert cli.main(["doctor", "--config", "configs/prior.py:smoke", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [line.split("  ")[0] for line in lines if line[0] != " "]  # others go on
    assert starts == ["parameters", "memory", "a step", "a checkpoint"]
    assert cli.main(["doctor", "--config", "configs/prior.py:smoke", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"{sum(found['parameters'].values()):,}" in lines[0]
    for argv, said in [
        (["--config", "configs/prior.py:smoke"], "--config goes together with --dry-run or --overfit N"),
        (["--run", "runs/x", "--dry-run"], "--config goes together with --dry-run or --overfit N"),
        (["--run", "runs/x", "--config.steps=3"], "--config.steps=3 changes a field of --config"),
        (["--config", "configs/prior.py:smoke", "--dry-run", "--config.stops=3"], "has no field 'stops'"),
        (["--config", "configs/prior.py:smoke", "--dry-run", "--fast"], "unrecognized arguments: --fast"),
        (["--config", "configs/prior.py:huge", "--dry-run"], "has no variant 'huge'; choose one of"),
        (["--config", "configs/base.py", "--dry-run"], "is no experiment"),
    ]:
        assert cli.main(["doctor", *argv]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("loss.likelihood", "laplace", "config.loss.likelihood 'laplace' is unknown; choose bernoulli, gaussian"),
        ("parallel", "pjit", "config.parallel 'pjit' is unknown; choose jit, pmap"),
    ],
)
def test_a_bad_config_is_one_line(field, value, said, capsys):
    assert cli.main(["doctor", "--config", "vae:smoke", "--dry-run", f"--config.{field}={value}"]) == 2
    assert capsys.readouterr().err == f"t2i: {said}\n"
