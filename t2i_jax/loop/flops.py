"""Arithmetic of a program, counted in its jaxpr; XLA's own count takes the body of a loop once."""

import math

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

# Products in jax's primitives of cuDNN's attention: the backward pass computes the scores again.
FLASH = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def flops_of(jaxpr) -> int:
    """Multiplications and additions of the matrix products and convolutions of a program, over all devices.

    A product [m, k] x [k, n] has 2 m k n. Loops count as often as they run, what is recomputed in a backward pass
    counts again, and of branches the dearest one counts. All else (sums, softmax, random numbers) is left out.

    Args:
      jaxpr: of `jax.make_jaxpr(f)(...)`, or of `jax.jit(f).trace(...).jaxpr`.

    Raises:
      ValueError: products in a loop whose length depends on values.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name in FLASH:
        return _of_attention(equation)
    if name == "cond":
        return max(flops_of(branch) for branch in params["branches"])
    within = sum(flops_of(inner) for inner in _jaxprs_in(params))
    if name == "scan":
        return params["length"] * within
    if name == "shard_map":  # shapes within are those of one device
        return params["mesh"].size * within
    if name == "while" and within:
        raise ValueError("matrix products in a while loop, whose length is not known before it runs")
    return within


def _jaxprs_in(params: dict):
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def _of_product(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval, equation.outvars[0].aval
    return 2 * math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted)


def _of_attention(equation) -> int:
    """As if every query met every key, which is what attention without this kernel computes."""
    query, key = (variable.aval.shape for variable in equation.invars[:2])
    batch, queries, heads, size = query
    return FLASH[equation.primitive.name] * 2 * batch * heads * queries * key[1] * size


def _of_convolution(equation) -> int:
    """Only of products with what is there: neither padding nor the zeros between strided inputs count."""
    params, (left, right) = equation.params, (variable.aval for variable in equation.invars)
    axes, out = params["dimension_numbers"], equation.outvars[0].aval
    inputs, outputs = right.shape[axes.rhs_spec[1]], out.shape[axes.out_spec[0]] * out.shape[axes.out_spec[1]]
    pairs = 1
    for i, axis in enumerate(axes.out_spec[2:]):
        positions = params["window_strides"][i] * np.arange(out.shape[axis])[:, None] - params["padding"][i][0]
        positions = positions + params["rhs_dilation"][i] * np.arange(right.shape[axes.rhs_spec[2 + i]])
        spacing, length = params["lhs_dilation"][i], left.shape[axes.lhs_spec[2 + i]]
        there = (positions % spacing == 0) & (positions >= 0) & (positions <= spacing * (length - 1))
        pairs *= int(there.sum())
    return 2 * outputs * inputs * pairs
