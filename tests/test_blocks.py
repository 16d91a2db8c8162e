"""Attention and losses in blocks of positions: the same numbers and gradients, and nothing large is ever whole."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_batch, fake_variables

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.loop import dry_run, flops
from t2i_jax.loop.setup import Setup
from t2i_jax.nn import blocks
from t2i_jax.nn.attention import KeyValue, attend, causal_mask
from t2i_jax.nn.stack import Stack
from t2i_jax.tasks import tokens

B, HEADS, Q, N, WIDTH = 3, 2, 11, 13, 5
KEY_BIAS = tuple(map(jax.tree_util.DictKey, ("key", "bias")))
RNG = np.random.default_rng(0)
QUERY = jnp.array(RNG.normal(size=(B * HEADS, Q, WIDTH)), "f4")
MEMORY = KeyValue(*(jnp.array(RNG.normal(size=(B * HEADS, N, WIDTH)), "f4") for _ in range(2)))
MASKS = {
    "causal": causal_mask(Q, N, 2),
    "padded text": (jnp.arange(N) < jnp.array([13, 4, 1])[:, None])[:, None, None],
    "of each example": jnp.array(RNG.random((B, 1, Q, N)) < 0.5).at[1, :, 3].set(False),  # one looks nowhere
}


def assert_equal_but_for_rounding(expected, found):
    """Within 1e-6 of a leaf's largest value; but for biases of keys, which softmax cancels."""

    def check(path, x, y):
        if path[-2:] != KEY_BIAS:
            np.testing.assert_allclose(y, x, rtol=0, atol=1e-6 * float(jnp.abs(x).max()), err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, expected, found)


def arrays_of(jaxpr):
    """Shapes of everything that a program computes, loops and what is computed again included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in flops._jaxprs_in(equation.params):
            yield from arrays_of(inner)


def sizes_of(traced, last):
    """Numbers in arrays of a program whose last axis is so long."""
    return {math.prod(shape) for shape in arrays_of(traced.jaxpr) if shape[-1:] == (last,)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", [1, 2, 3, 6])  # queries in a block, of 11
def test_attention_in_blocks_is_attention(monkeypatch, size, mask):
    def both(query, memory):
        out = attend(query, memory, MASKS[mask], HEADS)
        return jnp.sum(jnp.sin(3 * out)), out

    def trace():
        return jax.jit(jax.value_and_grad(both, (0, 1), has_aux=True)).trace(QUERY, MEMORY)

    whole = trace()
    monkeypatch.setattr(blocks, "LARGE", 4 * B * HEADS * N * size)
    parts = trace()
    assert_equal_but_for_rounding(*(traced.lower().compile()(QUERY, MEMORY) for traced in (whole, parts)))
    assert max(sizes_of(whole, N)) == B * HEADS * Q * N
    assert max(sizes_of(parts, N)) < B * HEADS * Q * N  # the mask; of the scores, a block
    assert B * HEADS * size * N in sizes_of(parts, N)


CASES = {  # config, and fields of the model
    "translator": (
        "translator:smoke",
        {"decoder": {"dropout": 0.0, "layers": 2, "unroll": 0, "remat": "full"}, "encoder": {"dropout": 0.0}},
    ),
    "dalle": ("dalle:smoke", {"dropout": 0.0, "unroll": 0}),  # a mask of its own in each layer
    "transformer": ("translator:transformer", {"width": 32, "heads": 2, "mlp_width": 48, "decoder_layers": 1}),
    "prior": ("prior:smoke", {"encoder": {"dropout": 0.0}, "layers": 1, "kernel": 11}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_in_blocks_are_those_of_the_whole(monkeypatch, case):
    name, fields = CASES[case]
    config = load_config(name)
    with config.unlocked():
        config.model.update({"codebook_size": 71, **fields})  # as long as no other axis
    task = tasks.make(config)
    batch = jax.tree.map(jnp.asarray, fake_batch(task, 5))
    params = fake_variables(jax.eval_shape(task.init, jax.random.key(0), batch)["params"])

    def loss(params):
        return task.phases()[0].loss_fn(params, {}, batch, step=0, rngs={}, train=False)

    def trace():
        return jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(params)

    whole = trace()
    codes = config.model.codebook_size
    monkeypatch.setattr(blocks, "LARGE", 4 * 5 * codes * 7)  # blocks of 6 of 24 positions, of 4 of 64
    parts = trace()
    assert_equal_but_for_rounding(*(traced.lower().compile()(params) for traced in (whole, parts)))
    logits = 5 * config.model.num_tokens * codes
    assert logits in sizes_of(whole, codes)
    assert logits not in sizes_of(parts, codes)


def test_a_loss_whose_last_block_is_short(monkeypatch):
    states, kernel = (jnp.array(RNG.normal(size=shape), "f4") for shape in ((B, 11, WIDTH), (WIDTH, 7)))
    ids = jnp.array(RNG.integers(0, 7, (B, 11)))
    loss = jax.value_and_grad(lambda kernel: tokens.prediction_loss(lambda x: x @ kernel, states, ids, 7)[0])
    whole = loss(kernel)
    monkeypatch.setattr(blocks, "LARGE", 4 * B * 7 * 3)  # 11 -> 6 -> 3: 12 positions, one of them padding
    assert_equal_but_for_rounding(whole, loss(kernel))


def test_dropout_in_blocks_is_drawn_anew_in_each_and_again_alike(monkeypatch):
    """Equal scores and one-hot values: what comes out are the weights."""
    length, rate, heads = 64, 0.3, 1
    query, values = jnp.zeros((4, length, length)), jnp.broadcast_to(jnp.eye(length), (4, length, length))
    everywhere, drop = jnp.ones((1, 1, 1, length), bool), nn.Dropout(rate, deterministic=False)
    weigh = jnp.array(RNG.normal(size=(4, length, length)), "f4")

    @partial(jax.jit, static_argnums=1)
    def draw(seed, large):
        monkeypatch.setattr(blocks, "LARGE", large)

        def out(values):
            return attend(
                query, KeyValue(query, values), everywhere, heads, partial(drop.apply, {}), jax.random.key(seed)
            )

        kept, pull = jax.vjp(out, values)
        return kept * length, pull(weigh)[0] * length

    large = 4 * 4 * length * 8  # 8 queries a block
    kept, gradient = draw(0, large)
    np.testing.assert_allclose(np.unique(kept), [0, 1 / (1 - rate)], rtol=1e-6)
    spread = (rate * (1 - rate) / kept.size) ** 0.5
    assert abs(float((kept == 0).mean()) - rate) < 4 * spread
    each = np.asarray(kept == 0).reshape(4, 8, 8, length).transpose(1, 0, 2, 3).reshape(8, -1)
    chance = rate**2 + (1 - rate) ** 2
    alike = [(each[i] == each[j]).mean() for i in range(8) for j in range(i)]
    assert np.abs(np.array(alike) - chance).max() < 6 * (chance * (1 - chance) / each.shape[1]) ** 0.5
    # What the backward pass draws again is what was drawn.
    np.testing.assert_allclose(gradient, jnp.einsum("bqk,bqd->bkd", kept, weigh), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(draw(0, large)[0], kept)
    assert (draw(1, large)[0] != kept).mean() > 0.3


def test_a_step_with_dropout_in_blocks_is_the_same_twice_and_another_with_another_seed(monkeypatch):
    """Layers scanned and rematerialised: the second forward pass draws what the first one drew."""
    attention = Stack(3, 8, 2, 12, "gelu", dropout=0.4, attention_dropout=0.4, unroll=0, remat="full")
    x = jnp.array(RNG.normal(size=(2, 9, 8)), "f4")
    params = attention.init(jax.random.key(0), x)["params"]
    monkeypatch.setattr(blocks, "LARGE", 4 * 2 * 2 * 9 * 4)

    def loss(x, seed):
        return jnp.sum(
            attention.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(seed)})[0] ** 2
        )

    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_array_equal(gradient(x, 0), gradient(x, 0))
    assert jnp.abs(gradient(x, 0) - gradient(x, 1)).max() > 0.1
    # And is the gradient of what was computed: of one direction by differences, in float32.
    direction = jnp.array(RNG.normal(size=x.shape), "f4")
    step = 3e-3
    expected = (loss(x + step * direction, 0) - loss(x - step * direction, 0)) / (2 * step)
    assert float(jnp.sum(gradient(x, 0) * direction)) == pytest.approx(float(expected), rel=1e-2)


def test_the_base_size_holds_neither_scores_nor_logits_as_a_whole():
    """Traced at its own size: as large as its logits are only the inputs of its 12 layers."""
    config = load_config("translator:coco")
    traced = Setup(tasks.make(config)).trace(config.batch_size)
    held = {shape for shape in arrays_of(traced.jaxpr) if math.prod(shape) >= 64 * 1024 * 8192}
    assert held == {(12, 64, 1024, 768)}


@pytest.mark.long
def test_the_base_size_fits_into_17_gigabytes():
    config = load_config("translator:coco")
    config.model.dtype = "float32"
    assert dry_run.measure(config)["scratch"] < 17e9
