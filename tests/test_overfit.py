"""The overfit check: captions and pictures come back, and a config that cannot learn them is told."""

import pytest

from t2i_jax import cli
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import overfit


@pytest.fixture
def arguments(smoke_run, data_dir):
    """Of the smoke variant, on the shared tokenizer and data."""
    return [f"--config.parents.tokenizer.run={smoke_run.tokenizer}", f"--config.data.data_dir={data_dir}"]


@pytest.mark.slow
def test_eight_captions_come_back(arguments, capsys):
    rate = "--config.optim.lr=5e-3"
    command = ["doctor", "--config", "configs/translator.py:smoke", "--overfit", "8", rate, *arguments]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "of the tokens of 8 captions came back" in out
    assert out.endswith("verdict: it can learn\n")
    assert float(out.split("%")[0]) >= 99


@pytest.mark.slow
def test_what_cannot_learn_is_told_and_the_learning_rate_suspected_first(arguments, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 50)
    config = load_config("configs/translator.py:smoke", ["--config.optim.lr=1e-7", *arguments])
    text, found = overfit.report(config, 3)
    assert (found["steps"], found["count"], found["learns"]) == (50, 3, False)
    assert "verdict: it cannot learn these; suspect the learning rate first (config.optim.lr 1e-07;" in text


def test_what_cannot_be_tried(arguments, tmp_path):
    config = load_config(
        "configs/translator.py:smoke", [f"--config.parents.tokenizer.run={tmp_path}", *arguments[1:]]
    )
    with pytest.raises(UserError, match="is not trained; train it first, or name another"):
        overfit.measure(config, 8)
    with pytest.raises(UserError, match="--overfit 0 is below 1"):
        overfit.measure(config, 0)
    with pytest.raises(UserError, match=r"that is sampled from captions, or of an image tokenizer$"):
        overfit.measure(load_config("configs/vae.py:smoke"), 8)
    with pytest.raises(UserError, match=r"^--overfit 5000: the data has \d+ different captions"):
        overfit.measure(load_config("configs/translator.py:smoke", arguments), 5000)


@pytest.mark.long
def test_one_picture_comes_back(data_dir, capsys):
    """Of a tokenizer; its discriminator is left out."""
    command = [
        "doctor",
        "--config",
        "configs/vqgan.py:smoke",
        "--overfit",
        "1",
        f"--config.data.data_dir={data_dir}",
    ]
    assert cli.main([*command, "--config.loss.adversarial=0.8", "--config.optim.lr=5e-3"]) == 0
    out = capsys.readouterr().out
    assert " dB of PSNR (the worst of 1), after " in out
    assert out.endswith("verdict: it can learn\n")
    assert float(out.split(" dB")[0]) >= 30


def test_a_tokenizer_that_learns_nothing_is_told(data_dir, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 50)
    options = ["--config.optim.lr=1e-9", f"--config.data.data_dir={data_dir}"]
    text, _ = overfit.report(load_config("configs/vqvae.py:smoke", options), 1)
    assert "; 30 dB should be reached\nverdict: it cannot learn these; suspect the learning rate first" in text
    assert "then a codebook of which few codes are used" in text
