"""Reconstruct pictures through one continuous vector each: an autoencoder, plain or variational."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from t2i_jax import losses
from t2i_jax.tasks import reconstruct

# The same pictures as a tokenizer's.
inputs, transform, init = reconstruct.inputs, reconstruct.transform, reconstruct.init

LIKELIHOODS = ("bernoulli", "gaussian")
LATENT = 1  # folded into the step's dropout key, for the draw of latent vectors


def kl_weight(step, beta: float, warmup: int):
    """Weight of the KL term at a step: from 0 up in a line, `beta` from step `warmup` on.

    Units that cost nothing at first are used; with the whole KL from the start they may never be
    (Bowman et al. 2016, section 3.1; Sønderby et al. 2016).
    """
    return jnp.float32(optax.linear_schedule(0.0 if warmup else beta, beta, warmup)(step))


def log_likelihood(
    logits: Float[Array, "B H W C"], images: Float[Array, "B H W C"], likelihood: str, sigma: float
) -> Float[Array, " B"]:
    """Nats a picture.

    Raises:
      ValueError: an unknown likelihood.
    """
    if likelihood == "bernoulli":
        return losses.bernoulli_log_likelihood(logits, images)
    if likelihood == "gaussian":
        return losses.gaussian_log_likelihood(jax.nn.sigmoid(logits), images, sigma)
    raise ValueError(f"likelihood {likelihood!r} is unknown; choose {', '.join(LIKELIHOODS)}")


def loss_fn(
    model,
    params,
    variables,
    batch,
    *,
    step,
    rngs,
    train,
    likelihood: str,
    sigma: float,
    beta: float,
    kl_warmup: int,
):
    """The negative ELBO (Kingma & Welling 2014, eq. 10, one draw a picture), its KL term weighted.

    A plain autoencoder has no KL term and draws nothing: minus the log likelihood alone.

    Args:
      batch: `{"image": [B, H, W, C]}` in [0, 1].
      likelihood: "bernoulli" or "gaussian".
      sigma: fixed deviation of a Gaussian pixel.
      beta: weight of the KL term (Higgins et al. 2017); 1 is the ELBO.
      kl_warmup: steps over which that weight grows from 0.

    Returns:
      loss in nats per pixel value, so that learning rates hold for any size; (variables, metrics in nats a
      picture).
    """
    images = batch["image"]
    key = jax.random.fold_in(rngs["dropout"], LATENT)
    (logits, mu, logvar), variables = model.apply(
        {"params": params, **variables}, images, key, train=train, mutable=list(variables)
    )
    likelihoods = jnp.mean(log_likelihood(logits, images, likelihood, sigma))
    metrics = {
        "log_likelihood": likelihoods,
        "psnr": jnp.mean(losses.psnr(jax.nn.sigmoid(logits), images)),
    }
    loss = -likelihoods
    if logvar is not None:
        kl, weight = (
            jnp.mean(jnp.sum(losses.kl_to_standard_normal(mu, logvar), -1)),
            kl_weight(step, beta, kl_warmup),
        )
        loss += weight * kl
        metrics |= {"kl": kl, "kl_weight": weight, "elbo": likelihoods - kl}
    loss /= images[0].size
    return loss, (variables, {"loss": loss, **metrics})


def predict(model, params, variables, batch, key, *, likelihood: str, sigma: float) -> dict:
    """What an evaluation reads of each picture.

    Returns:
      `image` [B, H, W, C], the reconstruction of the latent mean; `mu` [B, L]; and, in a variational model, `kl`
      [B, L] in nats a unit and `log_likelihood` [B] in nats at one drawn latent vector, or else at `mu`.
    """
    variables = {"params": params, **variables}
    means, mu, logvar = model.apply(variables, batch["image"])
    found = {"image": jax.nn.sigmoid(means), "mu": mu}
    if logvar is not None:
        found["kl"] = losses.kl_to_standard_normal(mu, logvar)
    logits = model.apply(variables, batch["image"], key)[0]
    return found | {"log_likelihood": log_likelihood(logits, batch["image"], likelihood, sigma)}
