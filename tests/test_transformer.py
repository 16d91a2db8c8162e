"""The original Transformer: positions, the cache, who sees what, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.models.transformer import Model
from t2i_jax.models.translator import shift_right
from t2i_jax.nn.positions import sinusoids

K, N, V, S = 19, 7, 31, 6
MODEL = Model(
    codebook_size=K, num_tokens=N, text_vocab_size=V, text_len=S, width=24, heads=3, mlp_width=40,
    encoder_layers=1, decoder_layers=2, dropout=0.0,
)  # fmt: skip


def batch(size, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(S) < (1 + (np.arange(size) * 2 + 2) % S)[:, None]
    return rng.integers(0, V, (size, S)), mask, rng.integers(0, K, (size, N))


@functools.cache
def params():
    """Weights far larger than at the start, so that every path matters to the logits."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), *batch(2))["params"]

    def draw(path, leaf):
        return jnp.array(0.25 * rng.normal(size=leaf.shape) + (path[-1].key == "scale"), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *inputs, method=None):
    return MODEL.apply({"params": params}, *inputs, method=method)


def test_positions_are_sines_and_cosines():
    table = sinusoids(50, 8)
    assert table.shape == (50, 8)
    np.testing.assert_allclose(table[0], [0, 1] * 4)
    np.testing.assert_allclose(table[7, 2], np.sin(7 / 10), rtol=1e-6)  # 10,000 ** (2 / 8) is 10
    np.testing.assert_allclose(table[7, 5], np.cos(7 / 100), rtol=1e-6)
    with pytest.raises(ValueError, match="width 7 is odd"):
        sinusoids(3, 7)


@pytest.mark.parametrize("size", [1, 5])
def test_cached_logits_are_those_of_the_whole_sequence(size):
    text_ids, mask, ids = batch(size)
    null = np.arange(size) == 3
    inputs, whole = shift_right(ids, K), apply(params(), text_ids, mask, ids, null)
    assert whole.dtype == jnp.float32
    assert whole.std() > 0.3
    cache = apply(params(), *apply(params(), text_ids, mask, null, method="encode"), method="init_cache")
    for position in range(N):
        logits, cache = apply(params(), inputs[:, position, None], position, cache, method="decode_step")
        np.testing.assert_allclose(logits[:, 0], whole[:, position], rtol=0, atol=1e-5)


def test_no_position_sees_the_future_or_padding_and_all_see_the_rest():
    text_ids, mask, ids = batch(3)
    plain = apply(params(), text_ids, mask, ids)
    later = apply(params(), text_ids, mask, jnp.asarray(ids).at[:, 3].set((ids[:, 3] + 1) % K))
    np.testing.assert_allclose(later[:, :4], plain[:, :4], atol=1e-6)
    assert (jnp.abs(later - plain)[:, 4:].max(-1) > 1e-3).all()
    padded = apply(params(), np.where(mask, text_ids, 5), mask, ids)
    np.testing.assert_allclose(padded, plain, atol=1e-6)
    changed = apply(params(), np.where(mask, (text_ids + 1) % V, text_ids), mask, ids)
    assert (jnp.abs(changed - plain).max((1, 2)) > 1e-2).all()


def test_null_rows_ignore_their_text_and_leave_the_others_alone():
    text_ids, mask, ids = batch(4)
    null = np.array([True, False, True, False])
    plain, logits = apply(params(), text_ids, mask, ids), apply(params(), text_ids, mask, ids, null)
    np.testing.assert_allclose(logits[~null], plain[~null], atol=1e-6)
    assert (jnp.abs(logits - plain)[null].max((1, 2)) > 1e-2).all()
    other = apply(params(), (text_ids + 3) % V, np.zeros_like(mask), ids, null)
    np.testing.assert_array_equal(logits[null], other[null])


def test_what_is_too_long_is_refused():
    text_ids, mask, ids = batch(1)
    with pytest.raises(ValueError, match=r"text has 12 tokens; the encoder reads 6 \(text_len\)"):
        MODEL.apply({"params": params()}, np.tile(text_ids, 2), np.tile(mask, 2), ids)
    with pytest.raises(ValueError, match=r"sequence has 14 tokens; the decoder writes 7 \(num_tokens\)"):
        MODEL.apply({"params": params()}, text_ids, mask, np.tile(ids, 2))


@pytest.mark.parametrize(("field", "value"), [("decoder_weights", "gpt2"), ("init_from_tokenizer", True)])
def test_a_start_that_it_has_no_place_for_is_refused(tmp_path, field, value):
    config = load_config("translator:transformer")
    config[field] = value
    with pytest.raises(UserError, match=rf"config\.{field} .* the model transformer starts at random"):
        tasks.make(config).check(tmp_path)
