"""Products of factors with fewer bits: what they are, their gradients, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_stack
from test_stack import STACK

from t2i_jax.nn import products
from t2i_jax.nn.dense import Dense, normal_init
from t2i_jax.nn.products import factors_type, to_int8
from t2i_jax.nn.stack import unstack, with_bits


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def rounded(x):
    return np.asarray(x, jnp.bfloat16).astype("f8")


@pytest.mark.parametrize(
    ("spec", "first", "second"),
    [
        ("abd,dk->abk", (2, 3, 5), (5, 7)),
        ("rqd,rkd->rqk", (4, 3, 5), (4, 7, 5)),
        ("rqk,rkd->rqd", (4, 3, 7), (4, 7, 5)),
    ],
)
def test_factors_and_what_comes_back_are_rounded_and_sums_are_not(spec, first, second):
    a, b = normal(*first), normal(*second, seed=1)
    with factors_type("bfloat16"):
        found, pull = jax.vjp(lambda a, b: products.einsum(spec, a, b), jnp.asarray(a), jnp.asarray(b))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.einsum(spec, rounded(a), rounded(b)), rtol=1e-5, atol=1e-5)
    assert np.abs(found - np.einsum(spec, a, b)).max() > 1e-3
    gradient = normal(*found.shape, seed=2)
    (a_, b_), out = spec.split("->")[0].split(","), spec.split("->")[1]
    expected = (
        np.einsum(f"{out},{b_}->{a_}", rounded(gradient), rounded(b)),
        np.einsum(f"{a_},{out}->{b_}", rounded(a), rounded(gradient)),
    )
    for grad, exact in zip(pull(jnp.asarray(gradient)), expected, strict=True):
        assert grad.dtype == jnp.float32
        np.testing.assert_allclose(grad, exact, rtol=1e-5, atol=1e-5)


def test_a_compiled_function_is_another_one_within():
    a, b = jnp.asarray(normal(3, 5)), jnp.asarray(normal(5, 4, seed=1))
    product = jax.jit(lambda a, b: products.einsum("nd,dk->nk", a, b))
    before = product(a, b)
    with factors_type("bfloat16"):
        within = product(a, b)
    np.testing.assert_array_equal(before, product(a, b))
    np.testing.assert_array_equal(before, jnp.einsum("nd,dk->nk", a, b))
    assert not np.array_equal(before, within)


@pytest.mark.parametrize("rows", [(1,), (2,), (3,), (4,), (5,), (2, 3)])
def test_int8_products_are_those_of_whole_numbers(rows):
    x, kernel = normal(*rows, 7), normal(7, 11, seed=1)
    kernel[:, 2] *= 1000  # an output's scale is its own
    x[..., 0] = 0
    found = products.int8_product(jnp.asarray(x), to_int8(jnp.asarray(kernel)))
    scales = (np.abs(x).max(-1, keepdims=True) / np.float32(127)), np.abs(kernel).max(0) / np.float32(127)
    whole = np.rint(x / scales[0]) @ np.rint(kernel / scales[1])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, whole * scales[0] * scales[1], rtol=1e-5, atol=1e-6)
    error = np.abs(found - x @ kernel) / np.abs(kernel).max(0)
    assert 1e-4 < error.max() < 0.1


def test_a_row_of_an_int8_product_depends_on_no_other():
    x, kernel = normal(6, 33), to_int8(jnp.asarray(normal(33, 5, seed=1)))
    x[4] = 0
    whole = products.int8_product(jnp.asarray(x), kernel)
    for row, alone in zip(whole, x, strict=True):
        np.testing.assert_array_equal(row, products.int8_product(jnp.asarray(alone[None]), kernel)[0])
    np.testing.assert_array_equal(whole[4], np.zeros(5))


def decoder():
    x, memory, memory_mask = test_stack.inputs()
    params = STACK.init(jax.random.key(0), x, None, memory, memory_mask)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    return {"decoder": unstack(params)}, lambda params: STACK.apply(
        {"params": params["decoder"]}, x, None, memory, memory_mask
    )[0]


def test_kernels_of_16_bits_are_multiplied_with_rounded_factors():
    x, kernel, bias = normal(2, 3, 5), normal(5, 7, seed=1), normal(7, seed=2)
    layer = Dense(7, normal_init(5))
    few = {"kernel": jnp.asarray(kernel, jnp.bfloat16), "bias": jnp.asarray(bias)}
    found = layer.apply({"params": few}, jnp.asarray(x))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded(x) @ rounded(kernel) + bias, rtol=1e-5, atol=1e-5)
    params, apply = decoder()
    assert {leaf.dtype.name for leaf in jax.tree.leaves(with_bits(params, 16))} == {"bfloat16", "float32"}
    assert 1e-4 < np.abs(apply(with_bits(params, 16)) - apply(params)).max() < 0.05


def test_kernels_of_8_bits_are_near_and_nothing_else_has_fewer():
    params, apply = decoder()
    few = with_bits(params, 8)
    assert 1e-4 < np.abs(apply(few) - apply(params)).max() < 0.2
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(few)}
    assert kinds == {"int8", "float32"}
    others = {"encoder": params["decoder"], "mix": {"kernel": jnp.ones((2, 2))}}
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, with_bits(others, 8), others))
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, with_bits(params, 32), params))
