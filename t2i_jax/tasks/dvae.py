"""Reconstruct images through relaxed codes: the training of a dVAE (Ramesh et al. 2021, section 2.1)."""

import jax
import jax.numpy as jnp
import optax

from t2i_jax import losses
from t2i_jax.errors import UserError
from t2i_jax.models import dvae
from t2i_jax.nn import codebooks
from t2i_jax.tasks.reconstruct import TokenizerTask

MARGIN = 3.0  # nats; Gumbel noise has a standard deviation of 1.3


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
    tau = optax.cosine_decay_schedule(1.0, temperature_steps, alpha=temperature)(step)
    beta = optax.linear_schedule(0.0, kl_weight, kl_steps)(step)
    noise = rngs["noise"] if train else None
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


class Task(TokenizerTask):
    """The negative evidence lower bound of relaxed codes."""

    loss_fn = staticmethod(loss_fn)

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """See `kmeans_codes`; `config.kmeans_examples` says of how many images, 0 switches it off."""
        if self.config.kmeans_examples:
            params = kmeans_codes(self.model, params, self.kmeans_images(), key)
        return params, variables

    @staticmethod
    def predict(model, params, variables, batch) -> dict:
        """Reconstructions `image` from the likeliest codes, and their `ids`."""
        ids = model.apply({"params": params, **variables}, batch["image"], method="tokenize")
        image = model.apply({"params": params, **variables}, ids, method="detokenize")
        return {"image": image, "ids": ids}


def kmeans_codes(model, params, images, key) -> dict:
    """Params whose logits are minus the squared distances to k-means centres of the encoder's own features.

    So all codes are in use from the first step, and a code already tells the decoder what its features were: it is
    a random projection of its centre. The distances are scaled until at half the places the likeliest code leads
    the next one by MARGIN.

    Args:
      images: [n, H, W, C] in [0, 1].

    Raises:
      UserError: so few images that there are fewer features than codes.
    """
    count, size = len(images) * model.num_tokens, model.codebook_size
    if count < size:
        raise UserError(f"config.kmeans_examples {len(images)} gives {count} features, {size} codes; raise it")

    def features(images):
        kept = model.apply({"params": params}, images, method="encode", mutable=["intermediates"])[1]
        return kept["intermediates"]["encoder"]["features"][0]

    @jax.jit
    def fit(images, key):
        flat = jax.lax.map(features, images[:, None], batch_size=100).reshape(count, -1)
        centres, *_ = codebooks.kmeans(flat, size, key)
        norms = jnp.sum(centres**2, axis=-1)
        likeliest = jax.lax.map(
            lambda x: jax.lax.top_k(2 * x @ centres.T - norms, 2)[0], flat, batch_size=codebooks.CHUNK
        )
        scale = MARGIN / jnp.median(likeliest[:, 0] - likeliest[:, 1])
        codes = (centres - centres.mean(0)) @ jax.random.normal(
            jax.random.fold_in(key, 1), (centres.shape[1], model.code_width)
        )
        output = {"kernel": 2 * scale * centres.T[None, None], "bias": -scale * norms}
        return output, codes / codes.std()

    output, codes = fit(images, key)
    return {**params, "codes": codes, "encoder": {**params["encoder"], "output": output}}
