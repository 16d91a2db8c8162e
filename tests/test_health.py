"""SSIM against scikit-image; the doctor's report and verdict on a sound and on a collapsed tokenizer."""

import json

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import cli, losses
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.evals import health


@pytest.mark.parametrize("shape", [(11, 11, 1), (32, 32, 3), (24, 37, 3)])
def test_ssim_equals_that_of_scikit_image(shape):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image comes with the extra `photos`")
    rng = np.random.default_rng(0)
    targets = rng.random((3, *shape)).astype(np.float32)
    images = np.clip(
        targets + np.array([0.02, 0.2, 2.0])[:, None, None, None] * rng.normal(size=targets.shape), 0, 1
    )
    expected = [
        metrics.structural_similarity(
            image,
            target,
            channel_axis=-1,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for image, target in zip(images, targets, strict=True)
    ]
    assert expected[0] > 0.9
    assert expected[2] < 0.5
    np.testing.assert_allclose(losses.ssim(jnp.float32(images), targets), expected, atol=1e-5)


def test_ssim_of_equal_and_of_small_pictures():
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(losses.ssim(images, images), 1, atol=1e-5)
    with pytest.raises(ValueError, match="10 x 16 pixels are smaller than the window of 11"):
        losses.ssim(images[:, :10], images[:, :10])


class FakeTokenizer:
    """Four tokens a picture, of `levels` codes in turn."""

    def __init__(self, data_dir, levels):
        self.config = load_config("patch_vqvae:smoke")
        self.config.data.data_dir = str(data_dir)
        self.shape, self.codebook_size, self.levels, self.kept = (32, 32, 3), 64, levels, None

    def tokenize(self, images):
        self.kept = images
        return np.arange(4 * len(images), dtype=np.int32).reshape(-1, 4) % self.levels

    def detokenize(self, ids):
        return np.clip(self.kept + (0.002 if self.levels > 1 else 0.5), 0, 1)


def test_a_sound_tokenizer_is_fit(data_dir):
    report, results, worst = health.examine(FakeTokenizer(data_dir, 64))
    assert results["fit"]
    assert "verdict: fit for stage two" in report
    assert "too low" not in report
    assert results["dead_codes"] == round(64 * (1 - results["usage"]))
    assert worst.shape == (64, 16 * 32, 3)


def test_a_collapsed_tokenizer_is_not(data_dir):
    report, results, _ = health.examine(FakeTokenizer(data_dir, 1))
    assert not results["fit"]
    assert results["dead_codes"] == 63
    assert results["perplexity"] == 1
    assert "verdict: not fit for stage two: usage, perplexity, psnr" in report
    assert "1.6% of 64 codes, 63 dead" in report


def test_the_worst_pictures_come_first(data_dir):
    class Uneven(FakeTokenizer):
        def detokenize(self, ids):
            return self.kept * (np.arange(len(ids)) != 7)[:, None, None, None]

    _, results, worst = health.examine(Uneven(data_dir, 64))
    assert results["psnr_worst"] < 20
    assert worst[:32, :32].max() > 0
    assert worst[32:, :32].max() == 0


def test_pictures_of_another_set_are_scaled(data_dir, monkeypatch):
    class Seen(FakeTokenizer):
        def tokenize(self, images):
            seen.append(images)
            return super().tokenize(images)

    wide = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), np.uint8)
    wide[:, :, :12] = wide[:, :, -12:] = 0  # cut off
    asked, seen = [], []

    def open_split(data, split):
        asked.append((data["name"], data["data_dir"], split))
        return grain.MapDataset.source([{"image": image} for image in wide]), "fingerprint"

    monkeypatch.setattr(health.sources, "open_split", open_split)
    report, _, _ = health.examine(Seen(data_dir, 64), "others", "there", "test")
    assert asked == [("others", "there", "test")]
    assert report.startswith("others, test: 3 pictures of 4 tokens")
    assert seen[0].shape == (3, 32, 32, 3)
    assert 0 <= seen[0].min() < 0.1
    assert 0.9 < seen[0].max() <= 1
    np.testing.assert_allclose(seen[0].mean((1, 2)), wide[:, :, 12:-12].mean((1, 2)) / 255, atol=0.01)

    wide = wide[..., :1]
    with pytest.raises(UserError, match="pictures of others have 1 channels, this tokenizer reads 3; name others"):
        health.examine(Seen(data_dir, 64), "others", "there", "test")
    tokenizer = Seen(data_dir, 64)
    tokenizer.config.data.channels = 1
    health.examine(tokenizer, "others", "there", "test")
    assert seen[-1].shape == (3, 32, 32, 1)


def test_doctor_from_the_command_line(data_dir, monkeypatch, tmp_path, capsys):
    fake = FakeTokenizer(data_dir, 64)
    monkeypatch.setattr(t2i_jax, "load", lambda run: fake)
    assert cli.main(["doctor", "--run", str(tmp_path), "--out", str(tmp_path / "a" / "worst.png")]) == 0
    out = capsys.readouterr().out
    assert "verdict: fit" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert cli.main(["doctor", "--run", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["fit"], found["dead_codes"], found["codebook_size"]) == (True, 0, 64)
    assert Image.open(tmp_path / "a" / "worst.png").size == (512, 64)
    monkeypatch.setattr(t2i_jax, "load", lambda run: object())
    assert cli.main(["doctor", "--run", str(tmp_path)]) == 2
    assert "holds no image tokenizer; name one" in capsys.readouterr().err
    for flag in ("--data-dir", "--out"):
        argv = ["doctor", "--config", "configs/vqvae.py:smoke", "--dry-run", flag, "elsewhere"]
        assert cli.main(argv) == 2
        assert f"{flag} goes together with --run" in capsys.readouterr().err
