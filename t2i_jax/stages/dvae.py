"""Training a dVAE."""

from functools import partial

import jax

from t2i_jax.errors import UserError
from t2i_jax.evals import reconstruction
from t2i_jax.random import stream
from t2i_jax.stages import Stage, Train


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data, start and evaluation."""
    del folder, train_first, accept
    if config.kmeans_examples < 0:
        raise UserError(f"config.kmeans_examples {config.kmeans_examples} is below 0; 0 switches k-means off")
    splits, transform = task.inputs(config)
    predict = jax.jit(partial(task.predict, model))

    def evaluate(params, variables):
        predict_batch = partial(predict, params, variables)
        return reconstruction.evaluate(predict_batch, splits["validation"], transform, model.codebook_size)

    def start(params, variables):
        return task.start(model, params, config, stream(config.seed, "start")), variables

    return Stage(splits, transform, start, evaluate)
