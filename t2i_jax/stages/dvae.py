"""Training a dVAE."""

from functools import partial

import jax

from t2i_jax.evals import reconstruction
from t2i_jax.stages import Stage, Train


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data and evaluation; it starts as it is initialised."""
    del folder, train_first, accept
    splits, transform = task.inputs(config)
    predict = jax.jit(partial(task.predict, model))

    def evaluate(params, variables):
        predict_batch = partial(predict, params, variables)
        return reconstruction.evaluate(predict_batch, splits["validation"], transform, model.codebook_size)

    return Stage(splits, transform, lambda params, variables: (params, variables), evaluate)
