"""A prior's run: trained, opened, drawn from with captions and without, and judged."""

import shutil
from functools import partial

import numpy as np
import pytest

import t2i_jax
from t2i_jax import cli, files, pipelines, runs
from t2i_jax.errors import UserError
from t2i_jax.evals import diversity, faithfulness, report, tokens
from t2i_jax.evals.pictures import beside
from t2i_jax.loop import continuing
from t2i_jax.loop.train import train
from t2i_jax.pictures import to_uint8

PROMPTS = ["a red seven", "a blue one above a green two"]


@pytest.fixture(scope="module")
def run(smoke):
    return smoke.run("prior")


@pytest.fixture(scope="module")
def unconditional(once, smoke):
    """A run that reads no captions."""

    def make(folder):
        config = smoke.config("prior")
        config.model.conditional, config.steps = False, 1
        train(config.lock(), folder)

    return once("unconditional", make)


@pytest.fixture(scope="module")
def pipe(run):
    return t2i_jax.load(run)


def test_training_leaves_scores_beside_their_baselines(run):
    scores = files.read_json(run / runs.SCORES)
    assert scores["step"] == 2
    assert scores["bits"] == pytest.approx(scores["nats"] / np.log(2))
    assert scores["unigram_nats"] < 1.1 * np.log(64)
    assert np.isfinite(list(scores.values())).all()
    assert {path.name for path in (run / "pictures").iterdir()} == {f"samples_000000{n}.png" for n in (1, 2)}


def test_it_draws_pictures_of_captions(pipe):
    assert isinstance(pipe, pipelines.Prior)
    assert pipe.conditional
    assert pipe.step == 2
    images = pipe(PROMPTS, num_images=3, seed=1)
    assert images.shape == (2, 3, 32, 32, 3)
    assert images.dtype == np.uint8
    ids = pipe.draw_ids(PROMPTS, np.zeros(2, int), 1, pipe.sampling)
    assert ids.shape == (2, 24)
    assert 0 <= ids.min() <= ids.max() < 64
    np.testing.assert_array_equal(images[:, 0], to_uint8(pipe.tokenizer.detokenize(ids)))
    np.testing.assert_array_equal(pipe(PROMPTS[1:], num_images=3, seed=1), images[1:])


def test_it_draws_pictures_of_nothing_in_particular(pipe):
    images = pipe.sample(5, seed=2)
    assert images.shape == (5, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 5
    np.testing.assert_array_equal(pipe.sample(2, seed=2), images[:2])
    assert not np.array_equal(pipe.sample(2, seed=3), images[:2])
    with pytest.raises(UserError, match="guidance_scale weighs a caption"):
        pipe.sample(2, guidance_scale=9.0)
    greedy = pipe.sample(3, temperature=0, unguided_tokens=0)
    assert (greedy == greedy[0]).all()


@pytest.mark.slow
def test_a_run_without_captions_reads_none(unconditional):
    pipe = t2i_jax.load(unconditional)
    assert not pipe.conditional
    assert pipe.sample(2).shape == (2, 32, 32, 3)
    for draw in (lambda: pipe(PROMPTS), lambda: report.evaluate_run(pipe, unconditional)):
        with pytest.raises(UserError, match="was trained without captions"):
            draw()


def test_t2i_samples_either_kind_of_prior_without_a_prompt(run, unconditional, tmp_path, capsys):
    for folder in (run, unconditional):
        out = tmp_path / "grid.png"
        argv = ["sample", "--run", str(folder), "-n", "2", "--temperature", "0.5", "--out", str(out)]
        assert cli.main(argv) == 0, capsys.readouterr().err
        assert out.exists()
        out.unlink()
        assert cli.main([*argv, "--guidance-scale", "2"]) == 2
        assert "there is none" in capsys.readouterr().err
    assert cli.main(["sample", "--run", str(unconditional), "--prompt", "a red seven"]) == 2
    assert "was trained without captions" in capsys.readouterr().err


def test_a_prior_without_its_tokenizer_is_not_finished(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    config = runs.read_config(folder)
    assert continuing.is_finished(folder, config)
    (folder / runs.TEXT_TOKENIZER).unlink()
    assert not continuing.is_finished(folder, config)


def test_a_run_that_always_read_captions_draws_none_without(pipe, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    config = files.read_json(folder / runs.CONFIG)
    config["data"]["caption_dropout"] = 0.0
    files.write_json(folder / runs.CONFIG, config)
    with pytest.raises(UserError, match="never saw a picture without its caption"):
        t2i_jax.load(folder).sample(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"n": 0}, "n 0 is below 1"), ({"n": 1, "seed": 2**32}, "seed 4294967296"), ({"n": 1, "top_p": 0}, "top_p 0")],
)
def test_what_cannot_be_drawn_says_so(pipe, options, said):
    with pytest.raises(UserError, match=said):
        pipe.sample(**options)


def test_uniform_ids_are_uniform_and_seeded():
    ids = tokens.uniform_ids(500, 24, 64, seed=3)
    assert (ids.shape, ids.dtype) == ((500, 24), np.int32)
    counts = np.bincount(ids.reshape(-1), minlength=64)
    assert len(counts) == 64
    assert np.abs(counts - 187.5).max() < 5 * np.sqrt(187.5)
    np.testing.assert_array_equal(ids, tokens.uniform_ids(500, 24, 64, seed=3))
    assert not np.array_equal(ids, tokens.uniform_ids(500, 24, 64, seed=4))


def test_it_is_judged_beside_uniform_ids(pipe):
    found = beside(pipe, PROMPTS * 2, np.zeros((2, 2, 32, 32, 3), np.uint8), 3, 1)
    assert list(found) == ["generated", "reconstructed", "real", "uniform"]
    uniform = to_uint8(pipe.tokenizer.detokenize(tokens.uniform_ids(4, 24, 64, 3)))
    np.testing.assert_array_equal(found["uniform"].reshape(uniform.shape), uniform)


@pytest.mark.long
def test_the_report_has_the_uniform_priors_score(pipe, run, monkeypatch):
    for module, name, few in (
        (faithfulness, "make_prompts", {"per_category": 3}),
        (diversity, "make_open_prompts", {"per_kind": 20}),
    ):
        monkeypatch.setattr(module, name, partial(getattr(module, name), **few))
    table, results = report.evaluate_run(pipe, run)
    for column in ("uniform", "held-out uniform"):
        assert results["faithfulness"][column]["overall"] <= 0.1
    assert table.count("uniform") == 2
    assert list(results["faithfulness"]["uniform"]) == [*faithfulness.CATEGORIES, "overall"]


def test_a_grid_other_than_the_tokenizers_is_one_line(command, smoke_run, data_dir, tmp_path):
    code, lines = command(
        "--config=configs/prior.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        f"--config.parents.tokenizer.run={smoke_run.tokenizer}",
        f"--config.data.data_dir={data_dir}",
        "--config.model.grid=(5, 5)",
    )
    assert code == 2
    assert "config.model.grid is (5, 5), but (6, 4) follows from config.parents.tokenizer.config.model" in lines[-1]
