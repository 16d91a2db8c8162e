"""Products whose factors have fewer bits than what is made of them."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

FEWEST_ROWS = 4  # of a product in int8: XLA on CPU has no fast one of fewer, and GPUs take multiples of 4 alone

# "bfloat16" rounds both factors of products of float32: see `einsum`. A part of the key of jax's compiled programs.
factors_type = jax.make_user_context("float32")


def einsum(spec: str, a: Float[Array, "..."], b: Float[Array, "..."], **options) -> Float[Array, "..."]:
    """`jnp.einsum` of two arrays; those of float32 are rounded within `with factors_type("bfloat16")`."""
    if a.dtype == jnp.float32 and factors_type.value != "float32":
        return float32_einsum(spec, a, b, factors_type.value)
    return jnp.einsum(spec, a, b, **options)


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def float32_einsum(spec: str, a: Float[Array, "..."], b: Float[Array, "..."], dtype: str) -> Float[Array, "..."]:
    """`jnp.einsum` of two arrays rounded to `dtype`, their products summed in float32, which is the result's type.

    A product that is rounded to bfloat16 has about 8 bits: of 8,192 logits most would be equal to another. The
    gradient that comes back is rounded to `dtype` too, for its own two products: one of a float32 and a bfloat16
    factor is computed as one of two float32, which is slow.
    """
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def _forward(spec, a, b, dtype):
    return float32_einsum(spec, a, b, dtype), (a, b)


def _backward(spec, dtype, factors, gradient):
    (first, second, out), (a, b) = spec.replace("->", ",").split(","), factors
    of_a = float32_einsum(f"{out},{second}->{first}", gradient, b, dtype)
    of_b = float32_einsum(f"{first},{out}->{second}", a, gradient, dtype)
    return of_a.astype(a.dtype), of_b.astype(b.dtype)


float32_einsum.defvjp(_forward, _backward)


def float32_product(x: Float[Array, "*B D"], kernel: Float[Array, "D K"], dtype: str) -> Float[Array, "*B K"]:
    """`x @ kernel` by `float32_einsum`, of `dtype` or, where that is less, of `factors_type`."""
    dtype = factors_type.value if dtype == "float32" else dtype
    y = float32_einsum("nd,dk->nk", x.reshape(-1, x.shape[-1]), kernel, dtype)
    return y.reshape(*x.shape[:-1], -1)


class Int8Kernel(NamedTuple):
    """A kernel [D, K] in 8 bits: `values.T * scale`.

    Attributes:
      values: from -127 to 127. Outputs come first: products in 8 bits are fastest so.
      scale: of each output.
    """

    values: Int8[Array, "K D"]
    scale: Float[Array, " K"]


def to_int8(kernel: Float[Array, "D K"]) -> Int8Kernel:
    """A kernel in 8 bits, each output with a scale of its own (Wu et al. 2020, arXiv 2004.09602, section 3)."""
    return Int8Kernel(*_rounded(kernel.T))


def int8_product(x: Float[Array, "*B D"], kernel: Int8Kernel) -> Float[Array, "*B K"]:
    """`x @ kernel` in float32, each row of `x` rounded to 8 bits by a scale of its own; sums are exact, in int32.

    So a row's product depends on nothing else of its batch.
    """
    rows = x.reshape(-1, x.shape[-1])
    values, scale = _rounded(jnp.pad(rows, ((0, -len(rows) % FEWEST_ROWS), (0, 0))))
    sums = jax.lax.dot_general(values, kernel.values, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
    y = (sums * scale[:, None] * kernel.scale)[: len(rows)]
    return y.reshape(*x.shape[:-1], -1)


def _rounded(x: Float[Array, "n D"]) -> tuple[Int8[Array, "n D"], Float[Array, " n"]]:
    """Rows in 8 bits, and what to multiply each with; one of zeros stays so."""
    x = x.astype(jnp.float32)
    largest = jnp.abs(x).max(-1)
    scale = jnp.where(largest > 0, largest, 1) / 127
    return jnp.round(x / scale[:, None]).astype(jnp.int8), scale
