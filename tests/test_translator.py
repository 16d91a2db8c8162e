"""The translator: who sees what, the null caption, the cache, and how a config builds it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from t2i_jax.models.translator import Model, shift_right
from t2i_jax.nn.dense import normal_init

K, N, V, S = 19, 7, 31, 6


def make_config(**changes):
    config = ConfigDict(
        {
            "codebook_size": K,
            "num_tokens": N,
            "text_vocab_size": V,
            "text_len": S,
            "encoder": {"width": 24, "heads": 3, "mlp_width": 40, "layers": 1, "max_positions": S},
            "decoder": {"width": 32, "heads": 4, "mlp_width": 48, "layers": 2, "positions": N},
        }
    )
    config.update(changes)
    return config


def build(**changes):
    return Model(**FrozenConfigDict(make_config(**changes)))


def batch(size, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(S) < (1 + (np.arange(size) * 2 + 2) % S)[:, None]
    text_ids = rng.integers(0, V, (size, S))
    return jnp.array(text_ids), jnp.array(mask), jnp.array(rng.integers(0, K, (size, N)))


@functools.cache
def model_and_params():
    """Weights far larger than at the start, so that every path matters to the logits."""
    model, rng = build(), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch(2))["params"]

    def weights(path, leaf):
        return jnp.array(0.17 * rng.normal(size=leaf.shape) + (path[-1].key == "scale"), leaf.dtype)

    return model, jax.tree_util.tree_map_with_path(weights, shapes)


@functools.cache
def forward():
    model, params = model_and_params()
    # Closed over, the weights would be constants, and XLA would take its time to fold them.
    return functools.partial(jax.jit(model.apply), {"params": params})


def test_shift_right_puts_bos_in_front():
    assert shift_right(jnp.array([[3, 5, 7], [0, 1, 2]]), 9).tolist() == [[9, 3, 5], [9, 0, 1]]


def test_logits_are_float32_and_have_no_bos():
    text_ids, mask, ids = batch(3)
    logits = forward()(text_ids, mask, ids)
    assert logits.shape == (3, N, K)
    assert logits.dtype == jnp.float32


def test_no_position_sees_the_future():
    model, params = model_and_params()
    text_ids, mask, _ = batch(1)
    table = params["gpt2"]["token_embed"]["embedding"]
    # All are distinct, so that the gradient of a row of the table is that of one position.
    ids = jnp.arange(N)[None] + 1

    def logits_of(table, params):
        changed = params | {"gpt2": params["gpt2"] | {"token_embed": {"embedding": table}}}
        return jnp.square(model.apply({"params": changed}, text_ids, mask, ids)[0]).sum(-1)

    influence = jnp.abs(jax.jit(jax.jacobian(logits_of))(table, params)).sum(-1)[:, shift_right(ids, K)[0]]
    seen = np.tril(np.ones((N, N), bool))
    assert (influence[seen] > 1e-3).all()
    assert (influence[~seen] == 0).all()


def test_padding_of_the_text_has_no_influence():
    text_ids, mask, ids = batch(4)
    logits = forward()(text_ids, mask, ids)
    np.testing.assert_allclose(logits, forward()(jnp.where(mask, text_ids, 5), mask, ids), atol=1e-6)
    # What is not padding has one.
    changed = forward()(jnp.where(mask, (text_ids + 1) % V, text_ids), mask, ids)
    assert (jnp.abs(changed - logits).max((1, 2)) > 0.05).all()
    # Nor does its length: the first row alone, cut to its real tokens.
    length = int(mask[0].sum())
    assert length < S
    short = forward()(text_ids[:1, :length], mask[:1, :length], ids[:1])
    np.testing.assert_allclose(logits[:1], short, atol=1e-5)


def test_null_rows_ignore_their_text_and_leave_the_others_alone():
    text_ids, mask, ids = batch(4)
    null = jnp.array([True, False, True, False])
    logits = forward()(text_ids, mask, ids, null)
    plain = forward()(text_ids, mask, ids, jnp.zeros(4, bool))
    np.testing.assert_array_equal(plain, forward()(text_ids, mask, ids))
    np.testing.assert_array_equal(logits[~null], plain[~null])
    assert (jnp.abs(logits - plain)[null].max((1, 2)) > 0.05).all()
    # Another text, of another length, even of none: null rows do not notice.
    other = forward()((text_ids + 3) % V, jnp.zeros_like(mask), ids, null)
    np.testing.assert_array_equal(logits[null], other[null])


def test_null_caption_learns_from_null_rows_only():
    model, params = model_and_params()
    text_ids, mask, ids = batch(3)

    @jax.jit
    def grad_of(null, params):
        def loss_fn(params):
            logits = model.apply({"params": params}, text_ids, mask, ids, null)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1).mean()

        return jax.grad(loss_fn)(params)

    none, one, every = (
        grad_of(jnp.array(null), params) for null in ([False] * 3, [False, True, False], [True] * 3)
    )
    assert not jnp.any(none["null_caption"])
    assert jnp.linalg.norm(one["null_caption"]) > 1e-4
    assert jnp.any(one["bert"]["word_embed"]["embedding"])
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(every["bert"]))


@pytest.mark.parametrize("size", [1, 5])
def test_cached_logits_equal_uncached(size):
    model, params = model_and_params()
    text_ids, mask, ids = batch(size, seed=size)
    assert size == 1 or len(set(mask.sum(1).tolist())) > 1
    null = jnp.arange(size) == 3

    @jax.jit
    def decode(variables):
        memory = model.apply(variables, text_ids, mask, null, method="encode")
        cache = model.apply(variables, *memory, method="init_cache")

        def advance(cache, at):
            ids, position = at
            logits, after = model.apply(variables, ids[:, None], position, cache, method="decode_step")
            assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, cache)
            return after, logits[:, 0]

        assert {leaf.shape[0] for leaf in jax.tree.leaves(cache)} == {size, 4 * size}  # heads
        return jax.lax.scan(advance, cache, (shift_right(ids, K).T, jnp.arange(N)))[1].swapaxes(0, 1)

    uncached = forward()(text_ids, mask, ids, null)
    np.testing.assert_allclose(decode({"params": params}), uncached, rtol=0, atol=1e-5)
    assert uncached.std() > 0.3


def test_dropout_is_on_while_training_only():
    model, params = model_and_params()
    text_ids, mask, ids = batch(2)

    @jax.jit
    def train(key, params):
        return model.apply({"params": params}, text_ids, mask, ids, train=True, rngs={"dropout": key})

    first, second = (train(jax.random.key(seed), params) for seed in range(2))
    assert jnp.abs(first - second).max() > 1e-2
    # Without `train`, no random stream is asked for.
    forward()(text_ids, mask, ids)


def test_bfloat16_computes_in_it_and_keeps_float32_outside():
    text_ids, mask, ids = batch(2)
    _, params = model_and_params()
    model = build(dtype="bfloat16")
    shapes = jax.eval_shape(model.init, jax.random.key(0), text_ids, mask, ids)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    logits = jax.jit(model.apply)({"params": params}, text_ids, mask, ids)
    assert logits.dtype == jnp.float32
    error = jnp.abs(logits - forward()(text_ids, mask, ids)).max()
    assert 1e-4 < error < 0.3
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.9  # not rounded to it

    def cache_of(params):
        memory = model.apply({"params": params}, text_ids, mask, method="encode")
        return model.apply({"params": params}, *memory, method="init_cache")

    cache = jax.eval_shape(cache_of, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16"), jnp.dtype("bool")}


def test_start_at_the_released_width_is_the_released_one():
    assert normal_init(768)(jax.random.key(0), (200, 200)).std() == pytest.approx(0.02, rel=0.02)


def test_start_follows_gpt2():
    decoder = {"width": 64, "heads": 4, "mlp_width": 256, "layers": 2, "positions": N}
    text_ids, mask, ids = batch(1)
    params = jax.jit(build(decoder=decoder).init)(jax.random.key(0), text_ids, mask, ids)["params"]
    layers, std = params["gpt2"]["decoder"]["layers"], 0.02 * (768 / 64) ** 0.5
    for part, name in (("attn", "out"), ("cross_attn", "out"), ("mlp", "down")):
        np.testing.assert_allclose(layers[part][name]["kernel"].std((1, 2)), std / 2, rtol=0.1)
    projections = [(part, name) for part in ("attn", "cross_attn") for name in ("query", "key", "value")]
    for part, name in (*projections, ("mlp", "up")):
        np.testing.assert_allclose(layers[part][name]["kernel"].std((1, 2)), std, rtol=0.1)
        assert not layers[part][name]["bias"].any()
    assert set(params["head"]) == {"kernel"}


def test_projection_only_where_widths_differ():
    text_ids, mask, ids = batch(1)
    encoder = {"width": 32, "heads": 4}
    for model, has in ((build(), True), (build(encoder=encoder), False)):
        params = jax.eval_shape(model.init, jax.random.key(0), text_ids, mask, ids)["params"]
        assert ("enc_to_dec_proj" in params) is has


def test_defaults_are_bert_base_and_gpt2():
    model = Model(codebook_size=8192, num_tokens=1024, text_vocab_size=30522, text_len=64)
    text, ids = jnp.zeros((1, 64), jnp.int32), jnp.zeros((1, 1024), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), text, text == 0, ids)["params"]

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert count(params["bert"]) == 109_482_240 - (768 * 768 + 768)  # bert-base-uncased, no pooler
    cross = 12 * (4 * (768 * 768 + 768) + 2 * 768)
    assert count(params["gpt2"]) == 124_439_808 - (50_257 - 8193) * 768 + cross


def test_a_model_is_hashable_and_equal_to_its_twin():
    assert build() == build()
    assert hash(build()) == hash(build())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_len": S + 1}, "text_len 7 is above the encoder's 6 positions"),
        ({"num_tokens": N + 1}, "num_tokens 8 is above the decoder's 7 positions"),
        ({"encoder": {"width": 25}}, "width 25 is not divisible by 3 heads"),
    ],
)
def test_settings_that_do_not_fit_say_so(changes, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build(**changes).init, jax.random.key(0), *batch(1))


def test_inputs_that_are_too_long_say_so():
    text_ids, mask, ids = batch(1)
    with pytest.raises(ValueError, match="text has 12 tokens; the encoder reads 6"):
        forward()(jnp.tile(text_ids, (1, 2)), jnp.tile(mask, (1, 2)), ids)
    with pytest.raises(ValueError, match="sequence has 14 tokens; the decoder writes 7"):
        forward()(text_ids, mask, jnp.tile(ids, (1, 2)))
