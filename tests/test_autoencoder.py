"""A trained autoencoder opened for use, and `t2i sample` of runs that read no prompt."""

import dataclasses
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import cli, files, pipelines, runs
from t2i_jax.errors import UserError
from t2i_jax.evals import autoencoding
from t2i_jax.loop.train import train
from t2i_jax.pipelines import batches

pytestmark = pytest.mark.slow  # a run is trained for them

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def run(smoke):
    return smoke.run("vae")


@pytest.fixture(scope="module")
def plain_config(smoke):
    """A plain autoencoder's, with changes."""

    def build(**changes):
        config = smoke.config("vae")
        config.update({"model": {"variational": False}, **changes})
        return config.lock()

    return build


@pytest.fixture(scope="module")
def plain(once, plain_config):
    """A plain autoencoder's run of one step."""
    return once("plain-autoencoder", lambda folder: train(plain_config(steps=1), folder))


@pytest.fixture(scope="module")
def opened(run):
    return t2i_jax.load(run)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)


def refusal(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_holds_its_scores_and_pictures(run, plain):
    scores = files.read_json(run / runs.SCORES)
    parts = {"psnr", "log_likelihood", "elbo", "kl", "kl_units", "active_units"}
    assert parts < set(scores)
    assert np.isfinite(np.hstack(list(scores.values()))).all()
    sizes = {"train_pictures", "validation_pictures"}
    assert set(files.read_json(plain / runs.SCORES)) == {"step", "psnr", "log_likelihood"} | sizes
    names = {"reconstructions", "interpolations"}
    assert {path.name.split("_")[0] for path in (plain / "pictures").iterdir()} == names
    assert {path.name.split("_")[0] for path in (run / "pictures").iterdir()} == names | {"samples"}


def test_a_run_continues(plain, plain_config, tmp_path):
    """One step in `plain`; a second gives what two in one go would have."""
    config = plain_config()
    whole, folder = tmp_path / "whole", shutil.copytree(plain, tmp_path / "run")
    train(config, folder, accept_config_change=True)
    train(config, whole)
    assert runs.read_weights(folder)[2:] == runs.read_weights(whole)[2:]


def test_a_stop_during_an_evaluation_is_at_once_and_saves(plain_config, tmp_path, monkeypatch):
    """At a step that is logged and scored, but has no checkpoint yet."""
    monkeypatch.setattr(autoencoding, "evaluate", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        train(plain_config(checkpoint_every=2), tmp_path)
    assert stop.value.code == 128 + signal.SIGTERM
    assert runs.checkpoint_steps(tmp_path) == [1]
    assert runs.read_weights(tmp_path)[2] == 1
    assert not (tmp_path / runs.SCORES).exists()


def test_encode_and_decode(opened, pictures, monkeypatch):
    z = opened.encode(pictures)
    assert (opened.step, z.shape, z.dtype) == (2, (5, opened.latent), np.float32)
    np.testing.assert_allclose(opened.encode(pictures / 255), z, atol=1e-5)
    images = opened.decode(z)
    assert (images.shape, images.dtype) == ((5, *SHAPE), np.float32)
    assert 0 <= images.min() < images.max() <= 1
    monkeypatch.setattr(batches, "BATCH", 2)
    np.testing.assert_allclose(opened.encode(pictures), z, atol=1e-5)
    assert opened.decode(z[:0]).shape == (0, *SHAPE)


def test_new_pictures_depend_on_seed_and_number_alone(opened):
    images = opened.sample(5, seed=3)
    assert (images.shape, images.dtype) == ((5, *SHAPE), np.uint8)
    assert np.abs(images.astype(int) - opened.sample(2, seed=3)[[0, 1, 1, 1, 1]])[:2].max() <= 1
    assert (images != opened.sample(5, seed=4)).any()
    assert len({image.tobytes() for image in images}) == 5


def test_interpolations_are_decoded_straight_lines(opened, pictures):
    between = opened.interpolate(pictures[:2], pictures[2:4], 3)
    assert (between.shape, between.dtype) == ((2, 3, *SHAPE), np.uint8)
    z = opened.encode(pictures)
    for place, vectors in enumerate((z[:2], (z[:2] + z[2:4]) / 2, z[2:4])):
        expected = opened.decode(vectors) * 255
        assert np.abs(between[:, place] - expected).max() < 1.01


def test_bad_input_is_refused(opened, plain, pictures):
    assert "this run reads [B, 32, 32, 3]" in refusal(opened.encode, pictures[..., :1])
    assert "this run reads [B, 8]" in refusal(opened.decode, np.zeros((2, 7)))
    assert "finite" in refusal(opened.decode, np.full((1, 8), np.nan))
    assert "n 0" in refusal(opened.sample, 0)
    assert "seed -1" in refusal(opened.sample, 1, seed=-1)
    assert "steps 1" in refusal(opened.interpolate, pictures, pictures, 1)
    assert "5 pictures cannot be paired with 4" in refusal(opened.interpolate, pictures, pictures[:4], 2)
    assert "plain autoencoder" in refusal(t2i_jax.load(plain).sample, 1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("loss.likelihood", "laplace", "config.loss.likelihood 'laplace' is unknown; choose bernoulli, gaussian"),
        ("loss.sigma", 0.0, "config.loss.sigma 0 is not above 0"),
        ("loss.beta", -1.0, "config.loss.beta -1 is below 0"),
        ("model.encoder", "eye", "config.model: encoder 'eye' is unknown"),
        ("data.image_size", 28, "has images (32, 32, 3), not (28, 28, 3); set config.data.image_size and"),
    ],
)
def test_a_bad_config_is_one_line(field, value, said, command, data_dir, tmp_path):
    options = [f"--config.data.data_dir={data_dir}", f"--config.{field}={value}"]
    code, lines = command("--config=configs/vae.py:smoke", f"--workdir={tmp_path / 'run'}", *options)
    assert code == 2
    assert said in lines[-1]
    assert not any("Traceback" in line for line in lines)


@dataclasses.dataclass
class FakePrior:
    """Any run that draws without a prompt, here one with a temperature."""

    calls: list = dataclasses.field(default_factory=list)
    digest: str = "c0ffee"

    def sample(self, n, seed=0, *, temperature=1.0):
        self.calls.append((n, seed, temperature))
        return np.full((n, 28, 28, 1), 200, np.uint8)


@pytest.fixture
def said(capsys):
    """Calls `t2i sample`, expects it to refuse, and returns the one line that it says."""

    def call(*argv):
        assert cli.main(["sample", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    return call


def test_t2i_samples_any_run_that_reads_no_prompt(monkeypatch, tmp_path, capsys):
    prior = FakePrior()
    monkeypatch.setattr(t2i_jax, "load", lambda run: prior)
    out = tmp_path / "new" / "grid.png"
    argv = ["sample", "--run", str(tmp_path), "-n", "5", "--seed", "7", "--out", str(out)]
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--temperature", "0.5", "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{out}\n" * 2
    assert prior.calls == [(5, 7, 1.0), (5, 7, 0.5)]
    with Image.open(out) as grid:
        pixels = np.asarray(grid)
    factor = 4  # 28 pixels become at least 96
    assert pixels.shape == (2 * 28 * factor + 4, 3 * 28 * factor + 8, 3)
    assert (pixels == 200).all(-1).sum() == 5 * (28 * factor) ** 2


def test_what_such_a_run_cannot_follow_is_refused(monkeypatch, tmp_path, said):
    prior = FakePrior()
    monkeypatch.setattr(t2i_jax, "load", lambda run: prior)
    run = ["--run", tmp_path, "--out", tmp_path / "grid.png"]
    assert "--guidance-scale means nothing to --run" in said(*run, "--guidance-scale", "2")
    assert "--top-k" in said(*run, "--top-k", "2", "--temperature", "1")
    assert "reads no prompt" in said(*run, "--prompt", "a red seven")
    assert ".png" in said("--run", tmp_path, "--out", tmp_path / "grid.jpg")
    assert prior.calls == []


def test_t2i_samples_an_autoencoder(run, plain, smoke_run, tmp_path, said, capsys):
    out = tmp_path / "grid.png"
    assert cli.main(["sample", "--run", str(run), "-n", "16", "--out", str(out)]) == 0
    with Image.open(out) as grid:
        assert grid.size == (4 * 96 + 12, 4 * 96 + 12)
    capsys.readouterr()
    assert isinstance(t2i_jax.load(run), pipelines.AutoEncoder)
    assert "plain autoencoder" in said("--run", plain)
    assert "image tokenizer" in said("--run", smoke_run.tokenizer)
    assert "neither is given" in said("--run", smoke_run.translator)
    assert "reads no prompt" in said("--run", run, "--prompt", "a red seven")
    assert "--temperature means nothing" in said("--run", run, "--temperature", "0.5")
