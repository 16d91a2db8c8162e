"""Arithmetic, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from t2i_jax.loop.flops import flops_of
from t2i_jax.loop.optimizer import make_optimizer


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def flops_of_function(function, *args):
    return flops_of(jax.make_jaxpr(function)(*args))


PRODUCT = 2 * 3 * 4 * 4  # [3, 4] x [4, 4]
BATCH, SQUARE = shape(3, 4), shape(4, 4)


def repeated(x, w, length, remat=False):
    def layer(carry, _):
        return jnp.tanh(carry @ w) @ w if remat else carry @ w, None

    return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, length=length)[0]


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x, w: x @ w, PRODUCT),
        (lambda x, w: jnp.einsum("bi,bj->bij", x, x), 2 * 3 * 4 * 4),
        (lambda x, w: jnp.tanh(x) + x.sum(), 0),
        (lambda x, w: jax.jit(lambda y: y @ w)(x) @ w, 2 * PRODUCT),
        (lambda x, w: repeated(x, w, 5), 5 * PRODUCT),
        (lambda x, w: jax.lax.fori_loop(0, 6, lambda _, y: y @ w, x), 6 * PRODUCT),
        (lambda x, w: jax.lax.map(lambda y: repeated(y, w, 5), jnp.stack([x] * 7)), 7 * 5 * PRODUCT),
        (lambda x, w: jax.vmap(lambda y: repeated(y, w, 5))(jnp.stack([x] * 7)), 7 * 5 * PRODUCT),
        (lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w), 2 * PRODUCT),
        # Backward: a product for the input and one for the weight; under remat those of the forward pass again.
        (jax.grad(lambda x, w: jnp.sum(jnp.tanh(repeated(x, w, 5))), argnums=(0, 1)), 15 * PRODUCT),
        # Of a layer's two products the backward pass needs the first one's result alone.
        (jax.grad(lambda x, w: jnp.sum(repeated(x, w, 5, remat=True)), argnums=(0, 1)), 35 * PRODUCT),
        (
            jax.grad(lambda x, w: jnp.sum(repeated(jax.checkpoint(lambda y: jnp.tanh(y @ w))(x), w, 5))),
            13 * PRODUCT,
        ),
    ],
)
def test_products_and_loops(function, count):
    assert flops_of_function(function, BATCH, SQUARE) == count


def test_xla_counts_a_loop_once():
    """What this file is for; when it fails, XLA has learnt to count."""
    compiled = jax.jit(lambda x, w: repeated(x, w, 50)).lower(BATCH, SQUARE).compile()
    assert compiled.cost_analysis()["flops"] < 3 * PRODUCT


def test_a_loop_of_unknown_length_is_refused():
    def halve(x, w):
        return jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y @ w, x)

    with pytest.raises(ValueError, match="matrix products in a while loop"):
        flops_of_function(halve, BATCH, SQUARE)
    assert flops_of_function(lambda x: jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y / 2, x), BATCH) == 0


@pytest.mark.parametrize(
    ("options", "taps"),
    [
        ({"window_strides": (1, 1), "padding": "VALID"}, (6 * 3) ** 2),
        ({"window_strides": (1, 1), "padding": "SAME"}, (8 * 3 - 2) ** 2),  # the first and the last lack one each
        ({"window_strides": (2, 2), "padding": "VALID"}, (3 * 3) ** 2),
        ({"window_strides": (1, 1), "padding": [(0, 0)] * 2, "lhs_dilation": (2, 2)}, (7 * 2 + 6) ** 2),
    ],
)
def test_convolutions(options, taps):
    """Pairs of an output and a tap of the kernel that meet an input, on each of two axes of 8."""

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    images, kernel = shape(2, 8, 8, 5), shape(3, 3, 5, 7)
    count = 2 * 2 * 5 * 7 * taps
    assert flops_of_function(convolve, images, kernel) == count
    gradients = jax.grad(lambda x, k: convolve(x, k).sum(), argnums=(0, 1))
    assert flops_of(jax.jit(gradients).trace(images, kernel).jaxpr) == 3 * count


def test_a_mapped_product_counts_on_each_device():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    mapped = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(rows, jax.sharding.PartitionSpec()), out_specs=rows
    )
    assert flops_of_function(mapped, BATCH, SQUARE) == PRODUCT


def test_muon_of_stacked_layers():
    """A layer has five iterations of [m, n] x [n, m], [m, m] x [m, m] and [m, m] x [m, n], where m <= n."""
    optimizer = make_optimizer({"muon": 1.0}, 200)
    params = {"blocks": {"kernel": shape(3, 16, 8)}}
    state = jax.eval_shape(optimizer.init, params)
    count = 3 * 5 * (2 * 8 * 16 * 8 + 2 * 8 * 8 * 8 + 2 * 8 * 8 * 16)
    assert flops_of_function(optimizer.update, params, state, params) == count


def test_attention_of_the_fused_kernel_counts_every_pair_of_positions(monkeypatch):
    """Two products forward; five backward, for it computes the scores again. Traced only: there is no GPU here."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_000)
    arrays = [jax.ShapeDtypeStruct((2, length, 3, 8), jnp.bfloat16) for length in (4, 6, 6)]

    def attention(*arrays):
        return jax.nn.dot_product_attention(*arrays, implementation="cudnn").astype("f4").sum()

    product = 2 * (2 * 3) * (4 * 6) * 8
    assert flops_of_function(attention, *arrays) == 2 * product
    assert flops_of_function(jax.grad(attention, (0, 1, 2)), *arrays) == 7 * product
