"""Training a translator: captions -> image tokens."""

from functools import partial

from t2i_jax import runs
from t2i_jax.errors import UserError
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.pipelines import Translator
from t2i_jax.stages import Stage, Train, halves
from t2i_jax.stages.drawing import draw_captions, prepare_drawing


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """See `prepare_drawing`; it starts from released weights where `config` names some."""
    released = [name for name in ("encoder_weights", "decoder_weights", "tokenizer_start") if config[name]]
    if config.model_name != "translator" and released:
        raise UserError(
            f"config.{released[0]} {config[released[0]]!r} needs config.model_name = 'translator'; the model"
            f" {config.model_name} starts at random: switch it off"
        )
    complete = Checkpoints(folder).latest is not None and (folder / runs.TEXT_TOKENIZER).exists()
    loaded, vocabulary = ({}, None) if complete else halves.load_weights(config)
    stage = prepare_drawing(
        config,
        folder,
        task,
        model,
        Translator,
        partial(draw_captions, config),
        train_first=train_first,
        accept=accept,
        vocabulary=vocabulary,
    )

    def start(params, variables):
        params, variables = stage.start(params, variables)
        params = halves.put(loaded, params)
        loaded.clear()  # as large as the model
        return params, variables

    return stage._replace(start=start)
