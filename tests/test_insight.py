"""What a model thought of an image, beside the same in numpy, a number at a time."""

import dalles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_pixelcnn
import test_transformer

import t2i_jax
from t2i_jax.models.translator import shift_right
from t2i_jax.nn import blocks, layout
from t2i_jax.nn.positions import sinusoids
from t2i_jax.pipelines.insight import attention_to_words, look


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def entropies(logits, valid):
    """Of [B, N, K], over the valid ids of each position."""
    rows = [[softmax(row[own]) for row, own in zip(image, valid, strict=True)] for image in logits]
    return np.array([[-(p * np.log(p)).sum() for p in row] for row in rows])


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def attend(x, memory, p, heads, reads):
    """The layer's output, and its weights, the mean of all heads; `reads(i)` are the keys of query i."""
    query, key, value = dense(x, p["query"]), dense(memory, p["key"]), dense(memory, p["value"])
    size, out, seen = query.shape[1] // heads, np.zeros_like(query), np.zeros((len(x), len(memory)))
    for i in range(len(x)):
        for head in range(heads):
            own, keys = slice(head * size, (head + 1) * size), reads(i)
            weights = softmax(key[keys, own] @ query[i, own] / np.sqrt(size))
            out[i, own] = weights @ value[keys, own]
            seen[i, keys] += weights / heads
    return dense(out, p["out"]), seen


def plain_decoder(params, memory, there, inputs):
    """Logits of one row of the original Transformer, and its cross attention, the mean of layers and heads."""

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    table, heads = params["token_embed"]["embedding"], test_transformer.MODEL.heads
    width, layers = table.shape[1], test_transformer.MODEL.decoder_layers
    x, total = table[inputs] * np.sqrt(width) + sinusoids(len(inputs), width), 0
    for number in range(layers):
        p = jax.tree.map(lambda array, number=number: array[number], params["decoder"]["layers"])
        x = norm(x + attend(x, x, p["attn"], heads, lambda i: list(range(i + 1)))[0], p["ln_attn"])
        out, seen = attend(x, memory, p["cross_attn"], heads, lambda i: np.flatnonzero(there))
        x, total = norm(x + out, p["ln_cross_attn"]), total + seen / layers
        x = norm(x + dense(np.maximum(dense(x, p["mlp"]["up"]), 0), p["mlp"]["down"]), p["ln_mlp"])
    return x @ table[: test_transformer.K].T, total


def some_valid(length, size):
    valid = np.random.default_rng(3).random((length, size)) < 0.5
    valid[:, 0] = True
    return valid


@pytest.mark.slow
@pytest.mark.parametrize("large", [2**27, 700])  # bytes that attention may hold at once
def test_cross_attention_and_entropy_are_those_of_the_plain_model(large, monkeypatch):
    monkeypatch.setattr(blocks, "LARGE", large)
    model, params, batch = test_transformer.MODEL, test_transformer.params(), test_transformer.batch(3)
    text_ids, mask, ids = batch
    valid = some_valid(model.num_tokens, model.codebook_size)
    found = jax.jit(look.__wrapped__, static_argnums=0)(model, params, *batch, valid)
    memory = np.asarray(model.apply({"params": params}, text_ids, mask, method="encode")[0], np.float64)
    plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    inputs = np.asarray(shift_right(ids, model.codebook_size))
    rows = [plain_decoder(plain, *row) for row in zip(memory, mask, inputs, strict=True)]
    logits, seen = map(np.array, zip(*rows, strict=True))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[..., 0], entropies(logits, valid), atol=1e-5)
    np.testing.assert_allclose(found[..., 1:], seen, atol=1e-6)
    assert np.ptp(seen, axis=1).max() > 0.05  # positions look at different pieces


def test_a_decoder_only_models_images_look_at_its_text():
    model, params = dalles.model_and_params()
    text_ids, mask, ids = dalles.batch(3)
    found, seen = look(model, params, text_ids, mask, ids), []
    plain = dalles.plain_logits(params, text_ids, mask, shift_right(ids, dalles.K), jnp.zeros(3, bool), seen)
    logits = plain[:, dalles.S :, dalles.V :]
    np.testing.assert_allclose(found[..., 0], entropies(logits, np.ones(logits.shape[1:], bool)), atol=1e-5)
    np.testing.assert_allclose(found[..., 1:], np.array(seen)[:, dalles.S :, : dalles.S], atol=1e-6)


@pytest.mark.slow
def test_a_priors_positions_look_at_the_caption():
    model, params, _ = test_pixelcnn.small()
    text_ids, mask = test_pixelcnn.texts(3)
    found = look(model, params, text_ids, mask, test_pixelcnn.random_ids(model, 3))[..., 1:]
    memory = np.asarray(model.apply({"params": params}, text_ids, mask, method="encode")[0])
    queries, p = np.asarray(params["position_embed"]), jax.tree.map(np.asarray, params["attn"])
    for row in range(3):
        there = np.flatnonzero(mask[row])
        expected = attend(queries, memory[row], p, model.heads, lambda i, there=there: there)[1]
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_pieces_are_summed_into_words_and_nothing_else_counts():
    weights = np.float32([[[0.5, 0.1, 0.05, 0.05, 0.2, 0.1], [1, 0, 0, 0, 0, 0]]])
    found = attention_to_words(weights, [[1], [2, 3], [4]])
    np.testing.assert_allclose(found, [[[0.25, 0.25, 0.5], [1 / 3] * 3]], rtol=1e-6)


def test_cells_are_where_tokens_stand():
    grids = layout.Grid("a", 1, 2, 1, 0, 3), layout.Grid("b", 3, 2, 2, 3, 4)
    cells = layout.cells(grids, 9, 5)
    assert cells[:2] == [(0, 0, 9, 2), (0, 2, 9, 5)]
    assert cells[2:6] == [(0, 0, 3, 2)] * 2 + [(0, 2, 3, 5)] * 2
    assert cells[-1] == (6, 2, 9, 5)
    assert len(cells) == layout.num_tokens(grids)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["translator", "prior"])
def test_a_runs_insight(smoke, name):
    pipe = t2i_jax.load(smoke.run(name))
    found = pipe.insight("A red seven, above", 3, 5, guidance_scale=2.0)
    np.testing.assert_array_equal(found.images, pipe(["A red seven, above"], 3, 5, guidance_scale=2.0)[0])
    assert found.words == ["A", "red", "seven", ",", "above"]
    assert (found.entropy.shape, found.entropy.dtype) == ((3, 24), np.float32)
    assert (found.entropy > 0).all()
    sizes = pipe.tokenizer.valid_ids.sum(-1)
    assert (found.entropy <= np.log(sizes) + 1e-5).all()
    assert (found.attention.shape, found.attention.dtype) == ((3, 24, 5), np.float32)
    np.testing.assert_allclose(found.attention.sum(-1), 1, rtol=1e-5)
    assert len(found.cells) == 24
    area = sum((bottom - top) * (right - left) for top, left, bottom, right in found.cells[8:])
    assert area == 32 * 32  # the finest of three grids, which is the last
