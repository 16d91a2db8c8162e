"""Training a decoder-only translator: captions and image tokens in one sequence."""

from functools import partial

from t2i_jax.pipelines import Translator
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.drawing import draw_captions, prepare_drawing


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """See `prepare_drawing`; the scores are those of a translator, `nats` of the image tokens alone."""
    show = partial(draw_captions, config)
    return prepare_drawing(config, folder, task, model, Translator, show, train_first=train_first, accept=accept)
