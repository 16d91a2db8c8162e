"""Reconstruct images so that a discriminator takes them for real ones (Esser et al. 2021, section 3.1).

For any image tokenizer that `tasks.reconstruct` trains. The discriminator's parameters lie beside the model's own,
which does not read them: so the run opens as a tokenizer's, and a translator builds on it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from t2i_jax import losses
from t2i_jax.nn.convolutions import Down
from t2i_jax.tasks import Phase, reconstruct

GENERATOR, DISCRIMINATOR = "^(?!discriminator/)", "^discriminator/"


class Discriminator(nn.Module):
    """Images -> one logit a patch, above 0 for real."""

    width: int = 16

    @nn.compact
    def __call__(self, images):
        x = 2 * images - 1
        for width in (self.width, 2 * self.width):
            x = nn.leaky_relu(Down(width)(x), 0.2)
        return nn.Dense(1)(x)


class Task(reconstruct.Task):
    """Two phases: a reconstruction that is to look real, then a discriminator by the hinge loss."""

    loss_fn = None

    def __init__(self, config):
        super().__init__(config)
        self.discriminator = Discriminator(**config.discriminator)

    def init(self, key, batch: dict) -> dict:
        variables = super().init(key, batch)
        own = self.discriminator.init(jax.random.fold_in(key, 1), batch["image"])["params"]
        return {**variables, "params": {**variables["params"], "discriminator": own}}

    def phases(self) -> tuple[Phase, ...]:
        config, judge = self.config, self.discriminator
        generator = self.loss(partial(generator_loss, judge=judge))
        discriminator = partial(discriminator_loss, self.model, judge=judge)
        return (
            Phase(generator, config.optim, "generator", GENERATOR),
            Phase(discriminator, config.discriminator_optim, "discriminator", DISCRIMINATOR),
        )


def generator_loss(
    model, params, variables, batch, *, step, rngs, train, judge, foreground_weight, adversarial_weight
):
    """That of `tasks.reconstruct`, minus the weighted mean logit of the reconstructions."""
    (images, asked, _), variables = model.apply(
        {"params": params, **variables}, batch["image"], train=train, mutable=list(variables), rngs=rngs
    )
    error = jnp.mean(losses.squared_error(images, batch["image"], foreground_weight) + asked)
    fooled = jnp.mean(judge.apply({"params": params["discriminator"]}, images))
    loss = error - adversarial_weight * fooled
    return loss, (variables, {"loss": loss, "reconstruction": error, "fooled": fooled})


def discriminator_loss(model, params, variables, batch, *, step, rngs, train, judge):
    """The hinge loss (Lim & Ye 2017, "Geometric GAN", equation 13) of real images and reconstructions."""
    images = model.apply({"params": params, **variables}, batch["image"], rngs=rngs)[0]
    real, fake = (judge.apply({"params": params["discriminator"]}, x) for x in (batch["image"], images))
    loss = jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake))
    return loss, (variables, {"loss": loss, "real": jnp.mean(real), "fake": jnp.mean(fake)})
