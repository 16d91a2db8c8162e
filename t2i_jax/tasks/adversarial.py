"""Reconstructions that look real: a discriminator beside an image tokenizer (Esser et al. 2021, section 3.1).

Its parameters lie beside the model's own, as "discriminator", which the model does not read: the run opens as any
tokenizer's. It learns from the first step on, but the tokenizer by it from `config.loss.disc_start` on alone. In
CompVis/taming-transformers it does not learn before that step either: a discriminator that knows nothing meets a
tokenizer that knows much, and people report that training breaks there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from t2i_jax.errors import UserError
from t2i_jax.models.patchgan import Discriminator, smallest_side
from t2i_jax.ranges import sides

PART = "discriminator"
GENERATOR, DISCRIMINATOR = f"^(?!{PART}/)", f"^{PART}/"  # parameters of the two phases
MOST = 1e4  # of the adaptive weight


def check(config, model) -> None:
    """Whether a config's adversarial phase can be.

    Raises:
      UserError: it would never start, pictures have not one patch, or the model names no last layer.
    """
    weight, start = config.loss.adversarial, config.loss.disc_start
    if not weight:
        return
    if start >= config.steps:
        raise UserError(
            f"config.loss.disc_start {start} is no step below config.steps {config.steps}; change either"
        )
    if not hasattr(model, "last_layer"):
        raise UserError(
            f"config.loss.adversarial {weight} weighs gradients at the model's last layer, and a"
            f" {config.model_name} names none; set it to 0"
        )
    layers = config[PART].layers
    if (side := min(sides(config.data.image_size))) < (least := smallest_side(layers)):
        raise UserError(
            f"config.discriminator.layers {layers} sees no patch in pictures of {side} pixels, but from"
            f" {least} on; lower it"
        )


def generator_loss(
    reconstruct: Callable, error_of: Callable, params: dict, judge: Discriminator, path: str, weight: float, on
) -> tuple[Array, dict, object]:
    """A loss of reconstructions plus `w` times minus their mean logit.

    `w` is `weight` times the ratio of the lengths of both gradients at the kernel that makes the pixels, at most
    `MOST` (Esser et al. 2021, eq. 7, and its code); it has no gradient itself. Gradients at the pixels are computed
    once, for the ratio and for the step alike, and logits not at all before `on`.

    Args:
      reconstruct: `params -> (images [B, H, W, C], asked [B]), other`.
      error_of: `(images, asked) -> loss, metrics`; that of the images alone gives the first gradient.
      params: the discriminator's under `PART`.
      judge: the discriminator.
      path: of that kernel in the params.
      weight: `config.loss.adversarial`.
      on: bool [], whether the discriminator counts.

    Returns:
      loss, metrics, other.
    """
    flat, path = flatten_dict(params), tuple(path.split("/"))

    def of_kernel(kernel):
        return reconstruct(unflatten_dict({**flat, path: kernel}))

    # The forward pass runs once; back to the kernel alone it is one product.
    (images, asked), back, other = jax.vjp(of_kernel, flat[path], has_aux=True)
    fixed = jax.lax.stop_gradient((images, asked))
    (error, metrics), (at_images, at_asked) = jax.value_and_grad(error_of, (0, 1), has_aux=True)(*fixed)

    def fooled(images):
        return jnp.mean(judge.apply({"params": params[PART]}, images))

    def nothing(images):
        return jnp.float32(0), jnp.zeros_like(images)

    logit, at_fooled = jax.lax.cond(on, jax.value_and_grad(fooled), nothing, fixed[0])

    def length_at_kernel(at_images):
        return jnp.linalg.norm(back((at_images, jnp.zeros_like(asked)))[0])

    ratio = length_at_kernel(at_images) / (length_at_kernel(at_fooled) + 1e-4)
    weight = jnp.where(on, weight * jnp.clip(ratio, 0.0, MOST), 0.0)
    cotangents = jax.lax.stop_gradient((at_images - weight * at_fooled, at_asked))
    # Its value is none, its gradient that of the loss.
    surrogate = sum(jnp.vdot(x, y) for x, y in zip((images, asked), cotangents, strict=True))
    loss = jax.lax.stop_gradient(error - weight * logit - surrogate) + surrogate
    metrics |= {"fooled": logit, "adversarial_weight": weight, "loss": loss}
    return loss, jax.lax.stop_gradient(metrics), other


def discriminator_loss(model, judge: Discriminator, params, variables, batch, *, step, rngs, train):
    """The hinge loss of a batch and of its reconstructions, as training sees these; the variables stay.

    Args:
      batch: `{"image": [B, H, W, C]}` in [0, 1].

    Returns:
      loss, (variables, metrics).
    """
    del step
    (fake, *_), _ = model.apply(
        {"params": params, **variables}, batch["image"], train=train, mutable=list(variables), rngs=rngs
    )
    pictures = jnp.concatenate([batch["image"], jax.lax.stop_gradient(fake)])
    real, fake = jnp.split(judge.apply({"params": params[PART]}, pictures), 2)
    loss = hinge(real, fake)
    return loss, (variables, {"loss": loss, "real": jnp.mean(real), "fake": jnp.mean(fake)})


def hinge(real: Float[Array, "B h w"], fake: Float[Array, "B h w"]) -> Float[Array, ""]:
    """The hinge loss of a discriminator's logits (Lim & Ye 2017, "Geometric GAN", eq. 13), halved as taming's."""
    return (jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake))) / 2
