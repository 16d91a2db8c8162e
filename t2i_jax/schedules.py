"""Numbers that change while training goes on: temperature of a relaxation, weight of a loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def linear(step: Int[Array, ""] | int, start: float, end: float, steps: int) -> Float[Array, ""]:
    """From `start` at step 0 along a line to `end` at step `steps`, and `end` from there on."""
    return start + (end - start) * _share(step, steps)


def cosine(step: Int[Array, ""] | int, start: float, end: float, steps: int) -> Float[Array, ""]:
    """From `start` at step 0 along half a cosine to `end` at step `steps`, and `end` from there on."""
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * _share(step, steps)))


def _share(step, steps):
    return jnp.clip(step / steps, 0.0, 1.0)
