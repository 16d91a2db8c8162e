"""Reconstruct pictures through relaxed codes: the training of a dVAE (Ramesh et al. 2021, section 2.1)."""

import jax
import jax.numpy as jnp

from t2i_jax import losses, schedules
from t2i_jax.models import dvae
from t2i_jax.tasks import reconstruct

inputs = reconstruct.inputs
init = reconstruct.init


def loss_fn(
    model,
    params,
    variables,
    batch,
    *,
    step,
    rngs,
    train,
    temperature: float,
    temperature_steps: int,
    kl_weight: float,
    kl_steps: int,
):
    """The negative evidence lower bound, in nats a pixel value, its second term weighted.

    Appendix A.2: the KL divergence of a picture's N tokens from the uniform prior is divided by its H W 3 values,
    as the likelihood is.

    Args:
      batch: `{"image": [B, H, W, 3]}` in [0, 1].
      temperature: of the relaxation after `temperature_steps`; it starts at 1 and falls along a cosine.
      kl_weight: beta after `kl_steps`; it starts at 0 and rises along a line.

    Returns:
      loss, (variables, metrics). The PSNR is that of relaxed codes, the temperature's own.
    """
    images = batch["image"]
    tau = schedules.cosine(step, 1.0, temperature, temperature_steps)
    beta = schedules.linear(step, 0.0, kl_weight, kl_steps)
    noise = jax.random.fold_in(rngs["dropout"], 1) if train else None
    logits, _, outputs = model.apply({"params": params, **variables}, images, temperature=tau, noise=noise)
    mean, log_scale = jnp.split(outputs, 2, axis=-1)
    likelihood = losses.logit_laplace(mean, log_scale, dvae.map_pixels(images))
    divergence = losses.divergence_from_uniform(logits).sum((-2, -1))
    values = images[0].size
    loss = jnp.mean(likelihood + beta * divergence / values)
    metrics = {
        "loss": loss,
        "likelihood": jnp.mean(likelihood),
        "divergence": jnp.mean(divergence) / model.num_tokens,
        "temperature": tau,
        "kl_weight": beta,
        "psnr": jnp.mean(losses.psnr(dvae.pixels_of(outputs), images)),
    }
    return loss, (variables, metrics)


def predict(model, params, variables, batch) -> dict:
    """Reconstructions `image` from the likeliest codes, and their `ids`."""
    ids = model.apply({"params": params, **variables}, batch["image"], method="tokenize")
    image = model.apply({"params": params, **variables}, ids, method="detokenize")
    return {"image": image, "ids": ids}
