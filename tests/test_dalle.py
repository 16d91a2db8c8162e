"""The decoder-only model: who sees what, two vocabularies, pads, the cache, and a plain twin in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dalles import K, N, S, V, batch, build, forward, model_and_params, plain_logits, text_and_image
from rollouts import cached_logits

from t2i_jax.losses import cross_entropy
from t2i_jax.models.translator import shift_right


def test_no_logits_see_the_future():
    """Of the whole model, by every row of the input: 4 layers, of which one reads everything before."""
    model, params = model_and_params()
    _, mask, _ = batch(1)
    mask = jnp.ones_like(mask)
    text_ids, ids = jnp.arange(S)[None] + 3, jnp.arange(N)[None] + 1
    rows = jnp.concatenate([text_ids[0], V + shift_right(ids, K)[0]])  # all different: a row is one position

    def logits_of(table):
        changed = params | {"token_embed": {"embedding": table}}
        text, image = model.apply({"params": changed}, text_ids, mask, ids, method=text_and_image)
        return jnp.concatenate([jnp.square(text[0]).sum(-1), jnp.square(image[0]).sum(-1)])

    influence = jnp.abs(jax.jit(jax.jacobian(logits_of))(params["token_embed"]["embedding"])).sum(-1)[:, rows]
    seen = np.tril(np.ones((S + N, S + N), bool))
    seen = np.delete(seen, S - 1, 0)  # the last text position writes nothing
    assert (influence[seen] > 1e-4).all()
    assert (influence[~seen] == 0).all()


@pytest.mark.parametrize("size", [1, 5])
def test_cached_logits_equal_uncached(size):
    model, params = model_and_params()
    text_ids, mask, ids = batch(size, seed=size)
    assert size == 1 or len(set(mask.sum(1).tolist())) > 2
    null = jnp.arange(size) == 3

    _, uncached = forward()(text_ids, mask, ids, null)
    found, shapes = cached_logits(model, params, text_ids, mask, null, ids)
    np.testing.assert_allclose(found, uncached, rtol=0, atol=1e-5)
    assert {shape[:2] for shape in shapes} == {(3 * size, S + N)}
    assert uncached.std() > 0.3


def test_a_picture_that_is_not_finished_has_the_logits_of_a_finished_one():
    text_ids, mask, ids = batch(2)
    whole, part = (forward()(text_ids, mask, ids[:, :length]) for length in (N, 7))
    np.testing.assert_allclose(part[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(part[1], whole[1][:, :7], atol=1e-5)


def test_a_plain_twin_gives_the_same_logits_and_distributions():
    _, params = model_and_params()
    text_ids, mask, ids = batch(4)
    null = np.arange(4) == 2
    text, image = forward()(text_ids, mask, ids, jnp.array(null))
    plain = plain_logits(params, text_ids, mask, shift_right(ids, K), null)
    assert text.shape == (4, S - 1, V)
    assert image.shape == (4, N, K)
    assert text.dtype == image.dtype == jnp.float32
    np.testing.assert_allclose(text, plain[:, : S - 1, :V], rtol=0, atol=2e-5)
    np.testing.assert_allclose(image, plain[:, S:, V:], rtol=0, atol=2e-5)
    assert image.std() > 0.3
    # The other vocabulary masked out of one softmax over both leaves the softmax of its own.
    joint = jax.nn.softmax(plain)
    assert not joint[:, :S, V:].any()
    assert not joint[:, S:, :V].any()
    np.testing.assert_allclose(jax.nn.softmax(text), joint[:, : S - 1, :V], atol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(image), joint[:, S:, V:], atol=1e-6)


def nats_of_image(params, text_ids, mask, ids, null=None):
    logits = model_and_params()[0].apply({"params": params}, text_ids, mask, ids, null)
    return cross_entropy(logits, ids).mean()


@pytest.mark.slow
def test_pads_are_read_and_learn_at_the_positions_that_have_no_word_piece():
    _, params = model_and_params()
    text_ids, mask, ids = batch(1)
    assert 0 < int(mask.sum()) < S
    grads = jax.jit(jax.grad(nats_of_image))(params, text_ids, mask, ids)
    np.testing.assert_array_equal(jnp.any(grads["pads"] != 0, 1), ~mask[0])
    read = jnp.any(grads["token_embed"]["embedding"][:V] != 0, 1)
    assert set(np.flatnonzero(read)) == set(np.asarray(text_ids[0][mask[0]]))
    # What stands in place of a pad is not looked at.
    logits = forward()(text_ids, mask, ids)
    jax.tree.map(np.testing.assert_array_equal, logits, forward()(jnp.where(mask, text_ids, 7), mask, ids))


@pytest.mark.slow
def test_null_rows_read_pads_alone_and_leave_the_others_alone():
    _, params = model_and_params()
    text_ids, mask, ids = batch(4)
    null = jnp.array([True, False, True, False])
    logits, plain = (forward()(text_ids, mask, ids, marks)[1] for marks in (null, jnp.zeros(4, bool)))
    np.testing.assert_array_equal(plain, forward()(text_ids, mask, ids)[1])
    np.testing.assert_array_equal(logits[~null], plain[~null])
    assert (jnp.abs(logits - plain)[null].max((1, 2)) > 0.05).all()
    empty = forward()((text_ids + 3) % V, jnp.zeros_like(mask), ids)[1]
    np.testing.assert_array_equal(logits[null], empty[null])
    grads = jax.jit(jax.grad(nats_of_image))(params, text_ids, mask, ids, jnp.ones(4, bool))
    assert jnp.any(grads["pads"] != 0, 1).all()
    assert not jnp.any(grads["token_embed"]["embedding"][:V])


def test_bfloat16_computes_in_it_and_keeps_float32_outside():
    text_ids, mask, ids = batch(2)
    _, params = model_and_params()
    model = build(dtype="bfloat16")
    shapes = jax.eval_shape(model.init, jax.random.key(0), text_ids, mask, ids)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    logits = jax.jit(model.apply)({"params": params}, text_ids, mask, ids)
    assert logits.dtype == jnp.float32
    assert 1e-4 < jnp.abs(logits - forward()(text_ids, mask, ids)[1]).max() < 0.3
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.9  # not rounded to it

    def cache_of(params):
        memory = model.apply({"params": params}, text_ids, mask, method="encode")
        return model.apply({"params": params}, *memory, method="init_cache")

    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(cache_of, params))} == {jnp.dtype("bfloat16")}


def test_dropout_is_on_while_training_only():
    model, params = model_and_params()

    @jax.jit
    def train(key, params):
        return model.apply({"params": params}, *batch(2), train=True, rngs={"dropout": key})

    first, second = (train(jax.random.key(seed), params) for seed in range(2))
    assert jnp.abs(first - second).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": (3, 4)}, "grid 3 x 4 does not hold num_tokens 15; change either"),
        ({"attention": ("diagonal",)}, "attention 'diagonal' is unknown; choose full, row, column or conv"),
        ({"kernel": 4}, "kernel 4 is no odd number from 1 up; change it"),
        ({"heads": 5}, "width 24 is not divisible by 5 heads"),
        ({"text_len": S + 1}, "text has 6 tokens; the model reads 7"),
    ],
)
def test_settings_that_do_not_fit_say_so(changes, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build(**changes).init, jax.random.key(0), *batch(1))


def test_pictures_that_are_too_long_say_so():
    text_ids, mask, ids = batch(1)
    with pytest.raises(ValueError, match="picture has 30 tokens; the model writes 15"):
        forward()(text_ids, mask, jnp.tile(ids, (1, 2)))
