"""Losses: per example, unreduced."""

import jax
import jax.numpy as jnp
import numpy as np
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
    return jnp.mean(_weights(targets, foreground_weight) * (images - targets) ** 2, axis=(-3, -2, -1))


def absolute_error(
    images: Float[Array, "B H W C"], targets: Float[Array, "B H W C"], foreground_weight: float = 1.0
) -> Float[Array, "B"]:
    """Mean absolute error per picture, in pixel units; see `squared_error`."""
    return jnp.mean(_weights(targets, foreground_weight) * jnp.abs(images - targets), axis=(-3, -2, -1))


def _weights(targets, foreground_weight):
    foreground = jnp.max(targets, axis=-1, keepdims=True) > 0.1
    return jnp.where(foreground, foreground_weight, 1.0)


def psnr(images: Float[ArrayLike, "B H W C"], targets: Float[ArrayLike, "B H W C"]) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio per picture in dB, for pixels in [0, 1]; at most 100."""
    error = jnp.mean((images - targets) ** 2, axis=(-3, -2, -1))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def ssim(images: Float[ArrayLike, "B H W C"], targets: Float[ArrayLike, "B H W C"]) -> Float[np.ndarray, "B"]:
    """Structural similarity per picture (Wang et al. 2004, section III.B), for pixels in [0, 1]; 1 if equal.

    Gaussian window of 11 pixels and standard deviation 1.5, without padding; mean over channels. On the host.

    Raises:
      ValueError: a side below 11 pixels.
    """
    from scipy.ndimage import gaussian_filter  # a quarter of a second, which sampling need not wait for

    height, width = np.shape(images)[1:3]
    if min(height, width) < 11:
        raise ValueError(f"pictures of {height} x {width} pixels are smaller than the window of 11")
    images, targets = (np.asarray(pictures, np.float64) for pictures in (images, targets))

    def blur(x):
        return gaussian_filter(x, 1.5, axes=(1, 2), radius=5)[:, 5:-5, 5:-5]

    mean_x, mean_y = blur(images), blur(targets)
    variance_x, variance_y = blur(images**2) - mean_x**2, blur(targets**2) - mean_y**2
    covariance = blur(images * targets) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return np.mean(similarity, axis=(-3, -2, -1))


def bernoulli_log_likelihood(
    logits: Float[Array, "B H W C"], targets: Float[Array, "B H W C"]
) -> Float[Array, "B"]:
    """Log likelihood per picture, in nats, of independent Bernoulli pixels (Kingma & Welling 2014, eq. 11).

    Args:
      logits: of the probability of 1.
      targets: pixels in [0, 1]. Those between count as that share of ones and zeros, so that the most a grey
        pixel can reach is minus its entropy; this is the usual choice, and no density over grey levels.
    """
    return jnp.sum(targets * logits - jax.nn.softplus(logits), axis=(-3, -2, -1))


def gaussian_log_likelihood(
    means: Float[Array, "B H W C"], targets: Float[Array, "B H W C"], sigma: float
) -> Float[Array, "B"]:
    """Log density per picture, in nats, of independent Gaussian pixels of one fixed standard deviation.

    Args:
      means: predictions, in [0, 1].
      targets: pixels in [0, 1].
      sigma: standard deviation of every pixel, in the same units; not learned. Densities may be above 1.
    """
    constant = jnp.log(sigma) + 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(-0.5 * ((targets - means) / sigma) ** 2 - constant, axis=(-3, -2, -1))


def kl_to_standard_normal(mu: Float[Array, "B L"], logvar: Float[Array, "B L"]) -> Float[Array, "B L"]:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), in nats per unit; their sum is a picture's.

    Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mu**2 + jnp.exp(logvar) - logvar - 1)


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
