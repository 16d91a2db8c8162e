"""Training an image tokenizer."""

from functools import partial

import jax

from t2i_jax.errors import UserError
from t2i_jax.evals import reconstruction
from t2i_jax.random import stream
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.backbone import check_backbone, find_weights, frozen_parts, load_weights


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data, codebook start and evaluation."""
    del train_first, accept
    check_backbone(config, folder)
    if config.kmeans_examples < 0:
        raise UserError(f"config.kmeans_examples {config.kmeans_examples} is below 0; 0 switches k-means off")
    splits, transform = task.inputs(config)
    predict = jax.jit(partial(task.predict, model))

    def start(params, variables):
        params, variables = load_weights(find_weights(config), params, variables)
        return task.start(model, params, variables, config, stream(config.seed, "start"))

    def evaluate(params, variables):
        predict_batch = partial(predict, params, variables)
        return reconstruction.evaluate(predict_batch, splits["validation"], transform, model.codebook_size)

    return Stage(splits, transform, start, evaluate, frozen=frozen_parts(config.model))
