"""Reconstruct images through a discrete bottleneck (an image tokenizer)."""

import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp

from t2i_jax import losses
from t2i_jax.errors import UserError
from t2i_jax.models import lpips
from t2i_jax.models.patchgan import Discriminator
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.ranges import sides
from t2i_jax.tasks import Evaluator, Overfit, Phase
from t2i_jax.tasks import adversarial as gan
from t2i_jax.tasks.codebooks import kmeans_codebooks, restart_dead_codes
from t2i_jax.tasks.images import ImageTask

LEARNED = 30.0  # dB of PSNR, of pictures that a tokenizer was trained on alone
AT_ONCE = 25  # pairs of pictures whose LPIPS an evaluation computes at a time: features are large


class TokenizerTask(ImageTask):
    """What all image tokenizers share: k-means over training images, scores, how a run is opened."""

    pipeline = Tokenizer

    def check(self, folder: Path) -> None:
        """See `Task.check`; the weights of LPIPS are at hand."""
        super().check(folder)
        _ = self.lpips

    @cached_property
    def lpips(self) -> dict | None:
        """The weights that `config.lpips_weights` names, by which runs are scored; None for "".

        Raises:
          UserError: they cannot be had, or do not go with the config.
        """
        folder, weight = self.config.get("lpips_weights", ""), self.config.loss.get("perceptual", 0.0)
        if weight and not folder:
            raise UserError(
                f"config.loss.perceptual {weight} needs released weights; set config.lpips_weights to a folder that"
                " t2i convert lpips made"
            )
        if not folder:
            return None
        weights, side = lpips.load(folder), min(sides(self.config.data.image_size))
        if side < (least := lpips.smallest_side(weights)):
            raise UserError(
                f"config.lpips_weights {folder} sees nothing in pictures of {side} pixels, but from {least} on;"
                " leave it out, or enlarge the pictures"
            )
        return jax.tree.map(jnp.asarray, weights)  # a constant each, however often it is read

    def kmeans_images(self):
        """[config.kmeans_examples, H, W, C] in [0, 1] of the training split."""
        count = self.config.kmeans_examples
        print(f"k-means over the features of {count} images", file=sys.stderr)
        return self.training_images(count)

    predict: Callable
    """`(model, params, variables, batch) -> {"image": [B, H, W, C] in [0, 1], "ids": [B, N]}`."""

    def evaluators(self) -> dict[str, Evaluator]:
        from t2i_jax.evals import reconstruction

        weights = self.lpips

        def distance(pair):
            return lpips.distance(weights, *(pictures[None] for pictures in pair))[0]

        @jax.jit
        def compiled(params, variables, batch):
            found = self.predict(self.model, params, variables, batch)
            if weights:
                pairs = found["image"], batch["image"]
                found["lpips"] = jax.lax.map(distance, pairs, batch_size=AT_ONCE)
            return found

        def evaluate(params, variables):
            def predict(batch, number):
                return compiled(params, variables, batch)

            split, size = self.data.splits["validation"], self.model.codebook_size
            return reconstruction.evaluate(predict, params, split, self.data.transform, size)

        return {"reconstruction": Evaluator(self.config.eval_every, evaluate)}

    @property
    def overfit(self) -> Overfit:
        """See `Task.overfit`: the PSNR of the worst picture."""

        @jax.jit
        def worst(params, variables, batch):
            images = self.predict(self.model, params, variables, batch)["image"]
            return jnp.min(losses.psnr(images, batch["image"]))

        return Overfit(
            "pictures",
            "image",
            lambda params, variables, batch, key: float(worst(params, variables, batch)),
            enough=LEARNED,
            wanted=f"{LEARNED:g} dB",
            shown="{:.1f} dB of PSNR (the worst of {})",
            suspects="a codebook of which few codes are used, then a decoder too small, then too few tokens",
        )


def loss_fn(
    model,
    params,
    variables,
    batch,
    lpips_weights: dict | None = None,
    discriminator=None,
    *,
    step,
    rngs,
    train,
    foreground_weight: float,
    absolute: float = 0.0,
    perceptual: float = 0.0,
    adversarial: float = 0.0,
    disc_start: int = 0,
):
    """Weighted squared error, the quantizer's loss (van den Oord et al. 2017, eq. 3), LPIPS and a discriminator's.

    Args:
      batch: `{"image": [B, H, W, C]}` in [0, 1].
      lpips_weights: see `models.lpips`; not read where `perceptual` is 0.
      discriminator: see `models.patchgan`; None where `adversarial` is 0.
      foreground_weight: weight of a pixel that is not black.
      absolute: weight of the absolute error, which above 0 stands in the place of the squared one.
      perceptual: weight of the LPIPS of reconstructions, which are not clipped for it; 0 leaves it out.
      adversarial: weight of the discriminator's term, beside an adaptive one; see `adversarial.generator_loss`.
      disc_start: steps before that term counts.

    Returns:
      loss, (variables after the codebook's update, metrics).
    """
    targets = batch["image"]

    def reconstruct(params):
        (images, asked, _), moved = model.apply(
            {"params": params, **variables}, targets, train=train, mutable=list(variables), rngs=rngs
        )
        return (images, asked), moved

    def error_of(images, asked):
        if absolute:
            error = absolute * losses.absolute_error(images, targets, foreground_weight)
        else:
            error = losses.squared_error(images, targets, foreground_weight)
        loss = jnp.mean(error + asked)
        metrics = {"psnr": jnp.mean(losses.psnr(images, targets)), "quantizer_loss": jnp.mean(asked)}
        if perceptual:
            metrics["lpips"] = jnp.mean(lpips.distance(lpips_weights, images, targets))
            loss += perceptual * metrics["lpips"]
        return loss, metrics | {"loss": loss}

    if discriminator is None:
        outputs, variables = reconstruct(params)
        loss, metrics = error_of(*outputs)
    else:
        on = step >= disc_start
        loss, metrics, variables = gan.generator_loss(
            reconstruct, error_of, params, discriminator, model.last_layer, adversarial, on
        )
    return loss, (variables, metrics)


class Task(TokenizerTask):
    """Weighted squared error, the quantizer's loss, LPIPS where it has a weight, and a discriminator where it has.

    With a discriminator there are two phases, its own the second; see `tasks.adversarial`.
    """

    loss_fn = staticmethod(loss_fn)
    parts: ClassVar = {gan.PART: Discriminator}

    @cached_property
    def discriminator(self) -> Discriminator | None:
        """The network of `config.discriminator`, where `config.loss.adversarial` has a weight."""
        return Discriminator(**self.config[gan.PART]) if self.config.loss.adversarial else None

    def check(self, folder: Path) -> None:
        """See `TokenizerTask.check`; the adversarial phase, if there is one, can be."""
        super().check(folder)
        gan.check(self.config, self.model)

    def init(self, key, batch: dict) -> dict:
        """See `Task.init`; with a discriminator's params beside the model's."""
        variables = super().init(key, batch)
        if self.discriminator is None:
            return variables
        own = self.discriminator.init(jax.random.fold_in(key, 1), batch["image"])["params"]
        return {**variables, "params": {**variables["params"], gan.PART: own}}

    def phases(self) -> tuple[Phase, ...]:
        """See `Task.phases`."""
        if self.discriminator is None:
            return super().phases()
        generator = self.loss(partial(self.loss_fn, discriminator=self.discriminator))
        own = partial(gan.discriminator_loss, self.model, self.discriminator)
        return (
            Phase(generator, self.config.optim, "generator", gan.GENERATOR + self.trains.removeprefix("^")),
            Phase(own, self.config.discriminator_optim, gan.PART, gan.DISCRIMINATOR),
        )

    def loss(self, loss_fn: Callable) -> Callable:
        """See `Task.loss`; the weights of LPIPS are constants of the step, and in no state."""
        loss = super().loss(loss_fn)
        return partial(loss, lpips_weights=self.lpips) if self.config.loss.get("perceptual") else loss

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """Released ResNet weights, and codebooks, where there are any, by k-means over features of training images.

        `config.kmeans_examples` says of how many; 0 switches it off.

        Raises:
          UserError: so few images that there are fewer features than codes.
        """
        params, variables = super().warm_start(params, variables, key)
        if not (self.config.kmeans_examples and variables.get("codebook")):
            return params, variables
        return kmeans_codebooks(self.model, params, variables, self.kmeans_images(), key)

    def between_steps(self, params: dict, variables: dict, batch: dict, key) -> tuple[dict, dict]:
        """See `restart_dead_codes`."""
        return restart_dead_codes(self.model, params, variables, batch, key)

    @staticmethod
    def predict(model, params, variables, batch) -> dict:
        """Clipped reconstructions `image` and their `ids`."""
        images, _, ids = model.apply({"params": params, **variables}, batch["image"])
        return {"image": jnp.clip(images, 0.0, 1.0), "ids": ids}
