"""Training an image tokenizer."""

import sys
from functools import partial

import jax

from t2i_jax.evals import reconstruction
from t2i_jax.loop.state import stream
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.backbone import find_weights, frozen_parts, load_weights


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data, codebook start and evaluation."""
    del folder, train_first, accept
    weights = find_weights(config)  # before the minutes that data may take
    splits, transform = task.inputs(config)
    predict = jax.jit(partial(task.predict, model))

    def start(params, variables):
        params, variables = load_weights(weights, params, variables)
        print(f"k-means over the features of {config.kmeans_examples} pictures", file=sys.stderr)
        return task.start(model, params, variables, config, stream(config.seed, "start"))

    def evaluate(params, variables):
        predict_batch = partial(predict, params, variables)
        return reconstruction.evaluate(predict_batch, splits["validation"], transform, model.codebook_size)

    return Stage(splits, transform, start, evaluate, frozen=frozen_parts(config.model))
