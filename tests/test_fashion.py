"""Fashion-MNIST: the prior's variant trained end to end on a few pictures, and the judge of what it draws."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from published import write_idx

import t2i_jax
from t2i_jax import files, runs
from t2i_jax.config import load_config
from t2i_jax.data.sources.fashion_mnist import CAPTIONS
from t2i_jax.evals import garments, report
from t2i_jax.evals.judges import fashion_mnist
from t2i_jax.loop.train import train

SMALL = {
    "data.train": "train[:15]",
    "data.validation": "train[15:]",
    "steps": 2,
    "batch_size": 8,
    "optim.warmup": 1,
    "checkpoint_every": 2,
    "eval_every": 2,
    "parents.tokenizer.config.steps": 2,
    "parents.tokenizer.config.batch_size": 8,
    "parents.tokenizer.config.optim.warmup": 1,
    "parents.tokenizer.config.checkpoint_every": 2,
    "parents.tokenizer.config.eval_every": 2,
    "parents.tokenizer.config.kmeans_examples": 15,
    "parents.tokenizer.config.model.codebook_size": 64,
    "parents.tokenizer.config.model.width": 16,
    "model.width": 16,
    "model.encoder.width": 16,
}


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures of ten classes, each of another direction, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CAPTIONS)
    angles, phases = labels * np.pi / len(CAPTIONS), rng.uniform(0, 2 * np.pi, count)
    y, x = np.mgrid[:28, :28]
    across = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    waves = np.sin(across + phases[:, None, None])
    return np.uint8(120 + 80 * waves + rng.uniform(0, 40, waves.shape))[..., None], labels.astype(np.uint8)


@pytest.fixture(scope="module")
def run(once):
    """A prior's run on twenty made-up pictures."""

    def make(folder):
        write_idx(folder / "data", "fashion_mnist", zipped=True)
        places = {"data.data_dir": folder / "data", "parents.tokenizer.run": folder / "tokenizer"}
        options = [f"--config.{name}={value}" for name, value in (SMALL | places).items()]
        train(load_config("prior:fashion", options).lock(), folder / "prior")

    return once("fashion", make) / "prior"


@pytest.mark.long
def test_the_prior_is_trained_on_the_captions_of_the_files(run):
    assert files.read_json(run / runs.SCORES)["step"] == 2
    pieces = files.read_json(run / runs.TEXT_TOKENIZER)["model"]["vocab"]
    assert {"sandal", "ankle", "boot", "shirt", "an"} <= pieces.keys()


def test_the_config_shows_the_captions_of_the_set():
    assert load_config("prior:fashion").shown_captions == CAPTIONS


@pytest.mark.long
def test_a_run_is_judged(run, monkeypatch):
    monkeypatch.setattr(garments, "PICTURES", 1)  # the made-up test set has no more of a class
    table, results = report.evaluate_run(t2i_jax.load(run), run)
    columns = results["classified"]
    assert list(columns) == ["generated", "reconstructed", "real", "uniform", "test set"]
    assert columns["real"] == columns["test set"]
    assert "bigram baseline" in table


def test_the_judge_asks_for_every_caption_and_compares_with_it(tmp_path, monkeypatch):
    """On classes that can be told apart: pictures as asked are right, those of the next class wrong."""
    sizes = {"train": 600, "test": 200}
    write_idx(tmp_path, "fashion_mnist", pictures=lambda _, split: stripes(sizes[split], len(split)))
    monkeypatch.setattr(garments, "PICTURES", 5)

    def beside(pipe, captions, real, seed, candidates):
        assert (pipe, seed, candidates) == (world, 3, 2)
        assert list(captions) == [words for words in CAPTIONS for _ in range(5)]
        as_asked.append(real)
        return {"generated": np.roll(real, 1, axis=0), "real": real}

    def sample(pipe, captions, seed, sampler):
        assert (pipe, seed, len(captions)) == (world, 3, 5 * len(CAPTIONS))
        return np.roll(*as_asked, sampler, axis=0).reshape(len(captions), 28, 28, 1)

    as_asked = []
    monkeypatch.setattr(fashion_mnist, "beside", beside)
    monkeypatch.setattr(fashion_mnist, "sample", sample)
    world = SimpleNamespace(config=ConfigDict({"data": {"name": "fashion_mnist", "data_dir": str(tmp_path)}}))
    table, results = fashion_mnist.judge(world, 3, 2)
    columns = results["classified"]
    assert list(columns) == ["generated", "real", "test set"]
    assert all(list(scores) == [*CAPTIONS, "overall"] for scores in columns.values())
    assert columns["generated"]["overall"] < 0.05
    assert columns["real"]["overall"] > 0.95
    assert columns["test set"]["overall"] > 0.95
    assert "an ankle boot" in table
    rate = fashion_mnist.rater(world, 3)
    assert rate(0) == (columns["real"]["overall"], results["intervals"]["classified"]["real"]["overall"])
    assert rate(1)[0] == columns["generated"]["overall"]


def test_the_classifier_tells_classes_apart():
    classifier = garments.Classifier(*stripes(600, 0))
    images, labels = stripes(200, 1)
    assert np.mean(classifier(images) == labels) > 0.97
    darker = np.uint8(images * 0.6)
    assert np.mean(classifier(darker) == labels) > 0.9


def test_shares_are_those_of_each_class():
    labels = np.repeat(np.arange(10), 4)
    found = labels.copy()
    found[:3], found[4] = 9, 0  # one of the first class is left, three of the second
    scores = garments.shares(found, labels)
    assert (scores["a t-shirt"], scores["trousers"], scores["an ankle boot"]) == (0.25, 0.75, 1.0)
    assert scores["overall"] == pytest.approx(0.9)


def test_some_of_each_class():
    labels = np.tile(np.arange(10), 6)
    images = (labels * 10 + np.repeat(np.arange(6), 10)).astype(np.uint8)[:, None, None, None]
    chosen = [garments.some_of_each(images, labels, 4, seed).squeeze() for seed in (0, 1)]
    for rows in chosen:
        assert rows.shape == (10, 4)
        assert (rows // 10 == np.arange(10)[:, None]).all()
        assert all(len(set(row)) == 4 for row in rows)
    assert (chosen[0] != chosen[1]).any()
