"""Training an autoencoder."""

from functools import partial

import jax
import numpy as np

from t2i_jax.errors import UserError
from t2i_jax.evals import autoencoding
from t2i_jax.pictures import picture_grid
from t2i_jax.pipelines import AutoEncoder
from t2i_jax.random import stream
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.backbone import check_backbone, find_weights, frozen_parts, load_weights

PAIRS, STEPS = 8, 9  # interpolations shown: pairs of pictures, and pictures from one to the other
NEW = 64  # new pictures shown


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data and evaluation.

    Raises:
      UserError: the loss does not fit.
    """
    del train_first, accept
    check_loss(config.loss, task.LIKELIHOODS)
    check_backbone(config, folder)
    splits, transform = task.inputs(config)
    likelihood = {name: config.loss[name] for name in ("likelihood", "sigma")}
    predict = jax.jit(partial(task.predict, model, **likelihood))
    pairs = np.stack([splits["validation"][i]["image"] for i in range(2 * PAIRS)])

    def evaluate(params, variables):
        def predict_batch(batch, number):
            return predict(params, variables, batch, stream(config.seed, "evaluate", number))

        scores, grids = autoencoding.evaluate(predict_batch, splits["validation"], transform)
        opened = AutoEncoder.of_parts(config, model, params, variables)
        between = opened.interpolate(pairs[:PAIRS], pairs[PAIRS:], STEPS)
        grids["interpolations"] = picture_grid(between.reshape(-1, *between.shape[2:]), STEPS)
        if model.variational:
            grids["samples"] = picture_grid(opened.sample(NEW, seed=config.seed), columns=16)
        return scores, grids

    def start(params, variables):
        return load_weights(find_weights(config), params, variables)

    return Stage(splits, transform, start, evaluate, frozen=frozen_parts(config.model))


def check_loss(loss, likelihoods) -> None:
    """Find mistakes before minutes of preparation.

    Raises:
      UserError: an unknown likelihood, or a number out of its range.
    """
    if loss.likelihood not in likelihoods:
        raise UserError(f"config.loss.likelihood {loss.likelihood!r} is unknown; choose {', '.join(likelihoods)}")
    if not loss.sigma > 0:
        raise UserError(f"config.loss.sigma {loss.sigma} is not above 0; give a deviation in pixel units, say 0.1")
    for name in ("beta", "kl_warmup"):
        if not loss[name] >= 0:
            raise UserError(f"config.loss.{name} {loss[name]} is below 0; give a number from 0 up")
