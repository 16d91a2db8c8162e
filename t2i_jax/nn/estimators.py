"""What a quantizer returns, and gradients from codes to features.

Letters: B batch, N feature vectors an image, D their width, M = N * residual_depth ids, K codebook size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

TINY = 1e-6  # length up to which a vector has no direction


class Quantized(NamedTuple):
    """What a quantizer makes of features.

    Attributes:
      codes: Float[B, N, D], with a gradient to the features.
      ids: Int[B, M] in [0, K), the residual codes of a vector side by side.
      loss: Float[B], commitment and codebook loss, to be added to the model's.
    """

    codes: Array
    ids: Array
    loss: Array


def straight_through(features: Float[Array, "*M D"], codes: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """`codes` in the forward pass, the identity of `features` in the backward one (Bengio et al. 2013)."""
    return features + jax.lax.stop_gradient(codes - features)


def rotate(features: Float[Array, "*M D"], codes: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """`codes` in the forward pass, the rotation from features to codes in the backward one.

    Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", section 4.2: with e the
    features, q the codes and r the unit vector half-way between their directions, |q| / |e| (e - 2 r r'e +
    2 q^ e^'e), all but e held fixed. Where either has no direction it is straight-through.
    """
    e, q = jax.lax.stop_gradient((features, codes))
    e_length, q_length = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (e, q))
    e_hat, q_hat = e / jnp.maximum(e_length, TINY), q / jnp.maximum(q_length, TINY)
    half = e_hat + q_hat
    half_length = jnp.linalg.norm(half, axis=-1, keepdims=True)
    half = half / jnp.maximum(half_length, TINY)

    def along(direction):
        return jnp.sum(features * direction, -1, keepdims=True)

    turned = features - 2 * along(half) * half + 2 * along(e_hat) * q_hat
    rotated = q_length / jnp.maximum(e_length, TINY) * turned
    # Opposite directions have no plane to turn in.
    shortest = jnp.minimum(jnp.minimum(e_length, q_length), half_length)
    return jnp.where(shortest > TINY, rotated, straight_through(features, codes))


def normalise(x: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """Vectors of length 1; a vector without direction stays near 0."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)
