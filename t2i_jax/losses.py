"""Losses: per example, unreduced."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int


def cross_entropy(logits: Float[Array, "*B K"], ids: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Cross entropy in nats of ids in [0, K), per position."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, ids)


def squared_error(
    images: Float[Array, "B H W C"], targets: Float[Array, "B H W C"], foreground_weight: float = 1.0
) -> Float[Array, "B"]:
    """Mean squared error per picture, in squared pixel units.

    Args:
      images: predictions.
      targets: pixels in [0, 1].
      foreground_weight: weight of a pixel that is not black (any channel above 0.1); black weighs 1.
    """
    foreground = jnp.max(targets, axis=-1, keepdims=True) > 0.1
    weights = jnp.where(foreground, foreground_weight, 1.0)
    return jnp.mean(weights * (images - targets) ** 2, axis=(-3, -2, -1))


def commitment(features: Float[Array, "B N D"], codes: Float[Array, "B N D"]) -> Float[Array, "B"]:
    """How far the encoder strays from its codes (van den Oord et al. 2017, eq. 3, third term), per picture.

    Args:
      features: encoder outputs; the gradient flows into these alone.
      codes: the codes chosen for them.
    """
    return jnp.mean((features - jax.lax.stop_gradient(codes)) ** 2, axis=(-2, -1))


def psnr(images: Float[ArrayLike, "B H W C"], targets: Float[ArrayLike, "B H W C"]) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio per picture in dB, for pixels in [0, 1]; at most 100."""
    error = jnp.mean((images - targets) ** 2, axis=(-3, -2, -1))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def logit_laplace(
    mean: Float[Array, "B H W C"], log_scale: Float[Array, "B H W C"], targets: Float[Array, "B H W C"]
) -> Float[Array, "B"]:
    """Mean negative log likelihood of pixels whose logits are Laplace distributed, in nats a value, per picture.

    Ramesh et al. 2021, appendix A.3, eq. 2: -ln f = ln(2 b x (1 - x)) + |logit x - mu| / b.

    Args:
      mean: mu.
      log_scale: ln b.
      targets: x in (0, 1), ends left out.
    """
    logit = jnp.log(targets) - jnp.log1p(-targets)
    density = jnp.log(2 * targets * (1 - targets)) + log_scale + jnp.abs(logit - mean) * jnp.exp(-log_scale)
    return jnp.mean(density, axis=(-3, -2, -1))


def divergence_from_uniform(logits: Float[Array, "*B K"]) -> Float[Array, "*B"]:
    """Kullback-Leibler divergence in nats of softmax(logits) from the uniform distribution over K, per position."""
    log_shares = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_shares) * log_shares, axis=-1) + jnp.log(logits.shape[-1])
