"""Training a prior over a tokenizer's codes."""

import math

from t2i_jax.pipelines import Prior
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.drawing import draw_captions, prepare_drawing


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """See `prepare_drawing`; the scores also have `bits`, the cross entropy in bits a code."""

    def show(pipe):
        return draw_captions(config, pipe) if pipe.conditional else pipe.sample(16, config.seed)

    stage = prepare_drawing(config, folder, task, model, Prior, show, train_first=train_first, accept=accept)

    def evaluate(params, variables):
        scores, grids = stage.evaluate(params, variables)
        return {"bits": scores["nats"] / math.log(2), **scores}, grids

    return stage._replace(evaluate=evaluate)
