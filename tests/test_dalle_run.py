"""The decoder-only model: its loss, its first embeddings, and a run trained, sampled and judged as others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dalles import K, N, S, V, batch, build, forward, model_and_params

import t2i_jax
from t2i_jax import cli, files, tasks
from t2i_jax.config import load_config
from t2i_jax.evals import copies, diversity, faithfulness
from t2i_jax.loop import overfit
from t2i_jax.tasks import dalle

pytestmark = pytest.mark.slow  # a run is trained for them


def test_the_loss_weighs_text_and_image():
    """By hand, from the logits; a caption that is dropped is one of pads, id 0."""
    model, params = model_and_params()
    text_ids, mask, ids = batch(3)
    null = jnp.array([False, True, False])
    arrays = {"text_ids": text_ids, "text_mask": mask, "ids": ids, "null": null}
    rest = {"step": 0, "rngs": {}, "train": False}
    loss, (_, metrics) = dalle.loss_fn(model, params, {}, arrays, **rest, text_weight=1 / 8)
    text, image = (np.log(np.asarray(jax.nn.softmax(part))) for part in forward()(text_ids, mask, ids, null))
    pieces = np.array(text_ids)
    pieces[1] = 0
    text_nats = -np.mean([text[b, i, pieces[b, i + 1]] for b in range(3) for i in range(S - 1)])
    image_nats = -np.mean([image[b, i, ids[b, i]] for b in range(3) for i in range(N)])
    assert metrics["text_nats"] == pytest.approx(text_nats, rel=1e-5)
    assert metrics["image_nats"] == pytest.approx(image_nats, rel=1e-5)
    assert loss == metrics["loss"] == pytest.approx(text_nats / 8 + image_nats * 7 / 8, rel=1e-5)
    assert abs(text_nats - image_nats) > 0.1


def test_codes_that_are_alike_begin_alike():
    model, rng = build(width=256, heads=4), np.random.default_rng(0)
    before = jax.tree.map(
        lambda x: jnp.full(x.shape, 7.0), jax.eval_shape(model.init, jax.random.key(0), *batch(1))
    )
    before, codebook = before["params"], rng.normal(3, 2, (K, 6))
    task = tasks.make(load_config("dalle:smoke"))
    task.model = model
    after = task.from_tokenizer(before, codebook, np.zeros((N, 3)), jax.random.key(1))
    table, head = after["token_embed"]["embedding"], after["head"]

    def cosines(rows):
        rows = np.asarray(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    codes = table[V : V + K]
    np.testing.assert_allclose(cosines(codes), cosines(codebook - codebook.mean(0)), atol=0.25)
    np.testing.assert_array_equal(head[:, V:], codes.T)
    assert (table[:V] == 7).all()
    assert (table[V + K :] == 7).all()  # what begins a picture has no code
    assert (head[:, :V] == 7).all()
    assert after["row_embed"] is before["row_embed"]


@pytest.fixture(scope="module")
def run(smoke):
    return smoke.run("dalle")


def test_training_logs_both_losses_and_scores_the_image(run):
    scores = files.read_json(run / "scores.json")
    assert scores["step"] == 2
    assert 3 < scores["nats"] < 5  # near log 64: of image tokens alone
    assert np.isfinite(list(scores.values())).all()


def test_it_draws_pictures_of_captions(run):
    pipe = t2i_jax.load(run)
    prompts = ["a red seven", "a blue one above a green two"]
    images = pipe(prompts, num_images=3, seed=1)
    assert images.shape == (2, 3, 32, 32, 3)
    np.testing.assert_array_equal(pipe(prompts[1:], num_images=3, seed=1), images[1:])
    ids = pipe.draw_ids(prompts, np.zeros(2, int), 1, pipe.sampling)
    assert 0 <= ids.min() <= ids.max() < 64
    assert np.isfinite(pipe.likelihood_ratios(prompts, ids)).all()


def test_the_usual_commands_take_such_a_run(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "grid.png"
    assert cli.main(["sample", "--run", str(run), "--prompt", "a red seven", "-n", "2", "--out", str(out)]) == 0
    assert out.exists()
    make_prompts = faithfulness.make_prompts
    monkeypatch.setattr(faithfulness, "make_prompts", lambda *args, **kw: make_prompts(*args, per_category=1, **kw))
    make_open = diversity.make_open_prompts
    monkeypatch.setattr(diversity, "make_open_prompts", lambda seed: make_open(seed, per_kind=20))
    monkeypatch.setattr(copies, "PLACES", 1)
    assert cli.main(["evaluate", "--run", str(run), "--out", str(tmp_path / "evaluation.json")]) == 0
    assert "overall" in files.read_json(tmp_path / "evaluation.json")["faithfulness"]["generated"]
    assert cli.main(["doctor", "--config", "configs/dalle.py:smoke", "--dry-run"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert cli.main(["export", "--run", str(run), "--format", "transformers", "--out", str(tmp_path / "x")]) == 2
    assert "holds no BERT and GPT-2 (dalle)" in capsys.readouterr().err


def test_it_overfits_a_few_captions(smoke, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 50)
    config = smoke.config("dalle")
    config.optim.lr = 5e-3
    found, _ = overfit.measure(config, 3)
    assert found["loss"] < 2.5
