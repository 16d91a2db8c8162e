"""An extension of ARCHITECTURE.md's table, registered by its own files alone (`extensions/`).

A masked model with a sampler of its own.
"""

import re
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_house import broken_rules, foreign_to_a_config

import t2i_jax
from t2i_jax import cli, models, runs, sampling, tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop.train import train

EXTENSIONS = Path(__file__).parent / "extensions"
FILES = sorted(EXTENSIONS.rglob("toy_*.py"))


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The folders of extensions stand beside the package's own, and no longer than here."""
    with pytest.MonkeyPatch.context() as patch:
        for package in (models, sampling, tasks):
            own = EXTENSIONS / package.__name__.rpartition(".")[2]
            patch.setattr(package, "__path__", [*package.__path__, str(own)])
        yield
    for name in [name for name in sys.modules if re.search(r"^t2i_jax\..*\.toy_", name)]:
        del sys.modules[name]


def config_of(name, data_dir):
    config = load_config(str(EXTENSIONS / "configs" / f"{name}.py"))
    config.data.data_dir = str(data_dir)
    return config


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_extension_imports_from_lower_floors_only(file):
    if file.parent.name == "configs":
        assert foreign_to_a_config(file.read_text()) == set()
    else:
        assert broken_rules(file.parent.name, file.read_text()) == []


# --- a masked model


@pytest.fixture(scope="module")
def masked_run(once, data_dir, smoke_run):
    def make(folder):
        config = config_of("toy_masked", data_dir)
        config.parents.tokenizer.run = str(smoke_run.tokenizer)
        train(config, folder)

    return once("toy_masked", make)


@pytest.mark.slow
def test_a_masked_model_is_trained_opened_and_sampled_by_its_own_sampler(masked_run):
    scores = t2i_jax.files.read_json(masked_run / runs.SCORES)
    assert scores["step"] == 4
    assert np.isfinite(scores["nats"])
    pipe = t2i_jax.load(masked_run)
    assert type(pipe.sampling).__module__ == "t2i_jax.sampling.toy_parallel"
    assert pipe.sampling.steps == 4
    images = pipe(["a red one", "two green fives"], num_images=2, seed=3, steps=3)
    assert images.shape == (2, 2, 32, 32, 3)
    np.testing.assert_array_equal(pipe(["two green fives"], num_images=2, seed=3, steps=3)[0], images[1])
    [(share, streamed)] = pipe.stream("two green fives", 2, 3, parts=4, steps=3)  # it knows no parts
    assert share == 1
    np.testing.assert_array_equal(streamed, images[1])
    assert pipe(["a red one"], candidates=3).shape == (1, 1, 32, 32, 3)  # ranked by likelihood

    def draw(seed, **settings):
        return pipe.draw_ids(["a red one"] * 8, np.arange(8), seed, pipe.sampling.replace(**settings))

    ids = draw(0)
    assert pipe.tokenizer.valid_ids[np.arange(ids.shape[1]), ids].all()
    np.testing.assert_array_equal(draw(0), ids)
    for other in (draw(1), draw(0, steps=1), draw(0, choice_noise=0.0)):
        assert (other != ids).any()
    greedy = draw(0, temperature=0, choice_noise=0)
    np.testing.assert_array_equal(greedy, np.broadcast_to(greedy[0], greedy.shape))


def test_keywords_are_the_fields_of_its_sampler(masked_run):
    pipe = t2i_jax.load(masked_run)
    for settings, said in [
        ({"step": 3}, r"^the sampler has no setting 'step'; did you mean 'steps'\?$"),
        ({"guidance_scale": 2.0}, "no setting 'guidance_scale'; it has steps, temperature, choice_noise$"),
        ({"steps": 0}, "^steps 0 is not above 0; give a whole number from 1 up$"),
        ({"steps": 2.5}, "^steps 2.5 is no whole number"),
    ]:
        with pytest.raises(UserError, match=said):
            pipe(["a red one"], **settings)


def test_its_settings_are_flags_and_fields_of_configs(masked_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sample", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--steps STEPS passes of the model (the run's own)" in said
    assert "--top-k" in said
    out = tmp_path / "grid.png"
    options = "--steps", "2", "--out", str(out)
    assert not cli.main(["sample", "--run", str(masked_run), "--prompt", "a red one", *options])
    assert out.exists()
    path = str(EXTENSIONS / "configs" / "toy_masked.py")
    config = load_config(path, ["--config.sampling.choice_noise=0.5", "--config.model.layers=2"])
    assert dict(config.sampling) == {"name": "toy_parallel", "steps": 4, "temperature": 1.0, "choice_noise": 0.5}
    assert (config.model.layers, config.model.heads) == (2, 2)
    with pytest.raises(UserError, match="no field"):
        load_config(path, ["--config.sampling.top_k=3"])


def test_masks_follow_the_cosine():
    """Exactly ceil(r N) a row with a mean r of 2 / pi, each position alike, at least one."""
    from t2i_jax.tasks.toy_masked import draw_masked

    rows, length = 8000, 64
    masked = np.asarray(draw_masked(jax.random.key(0), (rows, length)))
    counts = masked.sum(1)
    assert counts.min() >= 1
    u = np.random.default_rng(0).random(rows)
    assert stats.ks_2samp(counts, np.ceil(length * np.cos(np.pi / 2 * u))).pvalue > 1e-3
    assert masked.mean() == pytest.approx(2 / np.pi + 0.5 / length, abs=4 * 0.31 / rows**0.5)
    assert stats.chisquare(masked.sum(0)).pvalue > 1e-3


class Oracle(nn.Module):
    """Knows the answer, which its caption is; or, with `sure` 0, nothing."""

    num_tokens: int
    codebook_size: int
    sure: float

    def encode(self, text_ids, text_mask, null):
        return text_ids, text_mask

    def predict(self, ids, memory, memory_mask):
        return self.sure * jax.nn.one_hot(memory, self.codebook_size)


class Echo(Oracle):
    """Knows nothing until a token is there, and then that all others are the same."""

    def predict(self, ids, memory, memory_mask):
        seen = jax.nn.one_hot(ids, self.codebook_size).sum(1, keepdims=True)  # none of the mask
        return jnp.broadcast_to(self.sure * (seen > 0), (*ids.shape, self.codebook_size))


def draw(model, answer, seed=0, valid=None, **settings):
    rows = len(answer)
    condition = answer, np.ones_like(answer, bool), np.zeros(rows, bool)
    sampler = sampling.kind("toy_parallel")(**settings)
    return np.asarray(sampler.draw(model, {}, condition, jax.random.split(jax.random.key(seed), rows), valid))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_sampler_returns_what_an_oracle_knows_in_any_number_of_steps(temperature):
    answer = np.random.default_rng(0).integers(0, 7, (5, 6), np.int32)
    for steps in (1, 2, 3, 5, 6, 7, 50):
        drawn = draw(Oracle(6, 7, 1e3), answer, steps=steps, temperature=temperature)
        assert drawn.dtype == np.int32
        np.testing.assert_array_equal(drawn, answer)


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_uniform_logits_give_uniform_valid_ids(steps):
    rows, valid = 3000, np.repeat([[True] * 3 + [False] * 5, [False] * 3 + [True] * 5], [2, 3], axis=0)
    drawn = draw(Oracle(5, 8, 0.0), np.zeros((rows, 5), np.int32), valid=jnp.asarray(valid), steps=steps)
    for position, own in enumerate(valid):
        counts = np.bincount(drawn[:, position], minlength=8)
        assert counts[~own].sum() == 0
        assert stats.chisquare(counts[own]).pvalue > 1e-3
    pairs = np.bincount(drawn[:, 0] * 8 + drawn[:, 2], minlength=64).reshape(8, 8)[:3, 3:]
    assert stats.chi2_contingency(pairs).pvalue > 1e-3  # positions are independent


def test_later_steps_read_what_earlier_ones_drew():
    answer = np.zeros((200, 6), np.int32)
    spread = {steps: np.ptp(draw(Echo(6, 4, 1e3), answer, steps=steps), axis=1) for steps in (1, 6)}
    assert (spread[6] == 0).all()
    assert (spread[1] > 0).mean() > 0.9
