"""Reconstruct images through one continuous vector each: an autoencoder, plain or variational."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from t2i_jax import losses
from t2i_jax.errors import UserError
from t2i_jax.pictures import picture_grid
from t2i_jax.pipelines.autoencoder import AutoEncoder
from t2i_jax.random import stream
from t2i_jax.tasks import Evaluator
from t2i_jax.tasks.images import ImageTask

LIKELIHOODS = ("bernoulli", "gaussian")
PAIRS, STEPS = 8, 9  # interpolations shown: pairs of images, and images from one to the other
NEW = 64  # new images shown


def log_likelihood(
    logits: Float[Array, "B H W C"], images: Float[Array, "B H W C"], likelihood: str, sigma: float
) -> Float[Array, " B"]:
    """Nats an image.

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
    """The negative ELBO (Kingma & Welling 2014, eq. 10, one draw an image), its KL term weighted.

    A plain autoencoder has no KL term and draws nothing: minus the log likelihood alone.

    Args:
      batch: `{"image": [B, H, W, C]}` in [0, 1].
      likelihood: "bernoulli" or "gaussian".
      sigma: fixed standard deviation of a Gaussian pixel.
      beta: weight of the KL term (Higgins et al. 2017); 1 is the ELBO.
      kl_warmup: steps over which that weight grows from 0 along a line; 0 for none. Units that cost nothing at
        first are used; with the whole KL from the start they may never be (Bowman et al. 2016, section 3.1).

    Returns:
      loss in nats per pixel value, so that learning rates hold for any size; (variables, metrics in nats an image).
    """
    images = batch["image"]
    (logits, mu, logvar), variables = model.apply(
        {"params": params, **variables}, images, rngs["noise"], train=train, mutable=list(variables)
    )
    likelihoods = jnp.mean(log_likelihood(logits, images, likelihood, sigma))
    metrics = {
        "log_likelihood": likelihoods,
        "psnr": jnp.mean(losses.psnr(jax.nn.sigmoid(logits), images)),
    }
    loss = -likelihoods
    if logvar is not None:
        kl = jnp.mean(jnp.sum(losses.kl_to_standard_normal(mu, logvar), -1))
        weight = jnp.float32(optax.linear_schedule(0.0 if kl_warmup else beta, beta, kl_warmup)(step))
        loss += weight * kl
        metrics |= {"kl": kl, "kl_weight": weight, "elbo": likelihoods - kl}
    loss /= images[0].size
    return loss, (variables, {"loss": loss, **metrics})


class Task(ImageTask):
    """The negative ELBO of an autoencoder.

    Raises:
      UserError: as any task, an unknown likelihood, or a number of the loss out of its range.
    """

    pipeline = AutoEncoder
    loss_fn = staticmethod(loss_fn)

    def __init__(self, config):
        super().__init__(config)
        loss = config.loss
        if loss.likelihood not in LIKELIHOODS:
            raise UserError(
                f"config.loss.likelihood {loss.likelihood!r} is unknown; choose {', '.join(LIKELIHOODS)}"
            )

    def evaluators(self) -> dict[str, Evaluator]:
        from t2i_jax.evals import autoencoding

        loss, validation = self.config.loss, self.data.splits["validation"]
        compiled = jax.jit(partial(predict, self.model, likelihood=loss.likelihood, sigma=loss.sigma))
        pairs = np.stack([validation[i]["image"] for i in range(2 * PAIRS)])

        def evaluate(params, variables):
            def predict_batch(batch, number):
                return compiled(params, variables, batch, stream(self.config.seed, "evaluate", number))

            scores, grids = autoencoding.evaluate(predict_batch, params, validation, self.data.transform)
            opened = AutoEncoder.of_parts(self.config, self.model, params, variables)
            between = opened.interpolate(pairs[:PAIRS], pairs[PAIRS:], STEPS)
            grids["interpolations"] = picture_grid(between.reshape(-1, *between.shape[2:]), STEPS)
            if self.model.variational:
                grids["samples"] = picture_grid(opened.sample(NEW, seed=self.config.seed), columns=16)
            return scores, grids

        return {"autoencoding": Evaluator(self.config.eval_every, evaluate)}


def predict(model, params, variables, batch, key, *, likelihood: str, sigma: float) -> dict:
    """What an evaluation reads of each image.

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
