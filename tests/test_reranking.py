"""Pictures ranked by how much likelier their prompt makes them, or by a scorer that sees them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clips import write
from ml_collections import ConfigDict
from PIL import Image

import t2i_jax
from t2i_jax import cli, runs
from t2i_jax.errors import UserError
from t2i_jax.pipelines import Clip
from t2i_jax.pipelines.reranking import likelihood_ratio

PROMPTS = ["a red seven", "a blue one above a green two"]


@pytest.fixture(scope="module")
def pipe(smoke_run):
    """A run of two steps; its null caption made to count."""
    pipe = t2i_jax.load(str(smoke_run.translator))
    pipe._params = {**pipe._params, "null_caption": 30 * pipe._params["null_caption"]}
    return pipe


def test_the_ratio_by_hand():
    """Two tokens of three codes: the caption gives the second code 3/4 and 1/2, without one each has a third."""
    with_caption = jnp.log(jnp.array([[0.125, 0.75, 0.125], [0.25, 0.5, 0.25]]))

    class Model:
        def apply(self, variables, text_ids, text_mask, ids, null):
            return jnp.where(null[:, None, None], 0.0, variables["params"] * with_caption)

    ids, text = jnp.array([[1, 1], [0, 1], [2, 2]]), jnp.zeros((3, 1), jnp.int32)
    expected = np.log([0.75 * 0.5, 0.125 * 0.5, 0.125 * 0.25]) + 2 * np.log(3)
    np.testing.assert_allclose(likelihood_ratio(Model(), 1.0, ids, text, text > 0), expected, rtol=1e-5)


def test_ratios_are_those_of_the_models_own_logits(pipe):
    ids = np.random.default_rng(0).integers(0, 64, (2, 24)).astype(np.int32)
    text_ids, text_mask, _ = pipe._reader.encode_prompts(PROMPTS)
    totals = []
    for null in (False, True):
        inputs = text_ids, text_mask, ids, jnp.full(2, null)
        log_p = jax.nn.log_softmax(pipe._model.apply({"params": pipe._params}, *inputs))
        totals.append(np.take_along_axis(np.asarray(log_p), ids[..., None], -1).sum((1, 2)))
    ratios = pipe.likelihood_ratios(PROMPTS, ids)
    np.testing.assert_allclose(ratios, totals[0] - totals[1], atol=1e-3)
    assert np.abs(ratios).max() > 0.01
    np.testing.assert_allclose(pipe.likelihood_ratios(PROMPTS[1:], ids[1:]), ratios[1:], atol=1e-4)


def test_the_best_candidates_are_kept_best_first(pipe):
    everything = pipe(PROMPTS, num_images=5, seed=3, temperature=1.0)
    sampling = pipe.sampling.replace(temperature=1.0)
    kept = pipe(PROMPTS, num_images=2, seed=3, temperature=1.0, candidates=5)
    for number, prompt in enumerate(PROMPTS):
        ids = pipe.draw_ids([prompt] * 5, np.arange(5), 3, sampling)
        order = np.argsort(-pipe.likelihood_ratios([prompt] * 5, ids))
        np.testing.assert_array_equal(kept[number], everything[number][order[:2]])
    assert not np.array_equal(kept, everything[:, :2])
    np.testing.assert_array_equal(pipe(PROMPTS[1:], num_images=2, seed=3, temperature=1.0, candidates=5), kept[1:])


def test_what_cannot_be_ranked_says_so(pipe, smoke_run, tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"^candidates 2 is below the 3 pictures to keep of them"):
        pipe(PROMPTS, num_images=3, candidates=2)
    sample = ["sample", "--run", str(smoke_run.translator), "--out", str(tmp_path / "grid.png")]
    for argv, said in [
        (["--prompt", "a red seven", "--candidates", "3"], "--candidates 3 is out of range; give 4 (-n) to 1000"),
        (["--prompt", "a red seven", "--rerank", "likelihood"], "--rerank likelihood needs --candidates, say 32"),
        (["--candidates", "8"], "--candidates are ranked by a prompt, and there is none"),
        (["--prompt", "a red seven", "--rerank", "clip"], "--rerank clip needs --candidates, say 32"),
        (["--prompt", "a", "--clip", "folder"], "--clip folder is read by --rerank clip alone"),
    ]:
        assert cli.main([*sample, *argv]) == 2
        assert said in capsys.readouterr().err
    config = ConfigDict(runs.read_config(smoke_run.translator))
    config.data.caption_dropout = 0.0
    monkeypatch.setattr(pipe, "config", config)
    with pytest.raises(UserError, match="never saw a picture without its caption"):
        pipe(PROMPTS, candidates=2, guidance_scale=1)
    assert pipe(PROMPTS, candidates=2, rerank=redness, guidance_scale=1).shape == (2, 1, 32, 32, 3)
    with pytest.raises(UserError, match="rerank needs candidates to choose from"):
        pipe(PROMPTS, rerank=redness, guidance_scale=1)


def redness(prompts, images):
    """Of each picture, in a few steps, so that many are alike; the second prompt asks for the reverse."""
    sign = np.where(np.array(prompts) == PROMPTS[1], -1, 1)
    return sign * (images[..., 0].astype(float) - images[..., 2]).mean((1, 2)).round(-1)


def test_a_scorer_chooses_best_first_and_keeps_the_order_of_what_is_alike(pipe):
    asked = []

    def scorer(prompts, images):
        assert images.dtype == np.uint8
        assert len(prompts) == len(images)
        asked.append(len(images))
        return redness(prompts, images)

    everything = pipe(PROMPTS, num_images=40, seed=3, temperature=1.0)
    kept = pipe(PROMPTS, num_images=6, seed=3, temperature=1.0, candidates=40, rerank=scorer)
    assert asked == [64, 16]  # no more pictures at a time, however many are drawn
    for number, prompt in enumerate(PROMPTS):
        scores = redness([prompt] * 40, everything[number])
        best = sorted(range(40), key=lambda i: (-scores[i], i))[:6]
        np.testing.assert_array_equal(kept[number], everything[number][best])
        assert len(set(scores[best])) < 6
        assert best != [0, 1, 2, 3, 4, 5]


def test_the_command_line_keeps_the_best(smoke_run, tmp_path, capsys):
    out = tmp_path / "grid.png"
    argv = ["--run", str(smoke_run.translator), "--prompt", "a red seven", "-n", "1", "--out", str(out)]
    assert cli.main(["sample", *argv, "--candidates", "4", "--rerank", "likelihood"]) == 0, capsys.readouterr().err
    assert out.exists()


def test_clip_on_the_command_line(smoke_run, tmp_path, capsys):
    prompts, folder, out = tmp_path / "prompts.txt", write(tmp_path / "clip"), tmp_path / "samples"
    prompts.write_text("\n".join(PROMPTS))
    argv = ["sample", "--run", smoke_run.translator, "--prompts-file", prompts, "-n", 2, "--out", out]
    argv = [*map(str, argv), "--candidates", "4", "--rerank", "clip", "--clip", str(folder)]
    assert cli.main(argv) == 0, capsys.readouterr().err
    record = json.loads((out / "prompts.jsonl").read_text().splitlines()[1])
    assert {name: record[name] for name in ("candidates", "rerank", "clip")} == {
        "candidates": 4,
        "rerank": "clip",
        "clip": str(folder),
    }
    pipe = t2i_jax.load(str(smoke_run.translator))
    best = pipe(PROMPTS, num_images=2, candidates=4, rerank=Clip(folder))
    with Image.open(out / record["files"][1]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), best[1, 1])

    capsys.readouterr()
    (folder / "model.safetensors").write_bytes(b"cut")
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.safetensors is damaged, cut short or no safetensors file" in said
