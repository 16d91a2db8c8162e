"""Released weights for the encoder and the decoder of a translator."""

import sys
from contextlib import suppress
from pathlib import Path

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.convert import bert, gpt2, hub
from t2i_jax.data import vocabularies
from t2i_jax.errors import UserError
from t2i_jax.models.translator import Model


def fits(model) -> bool:
    """Whether a model has the encoder and decoder that released weights are for."""
    return isinstance(model, Model)


def load_weights(config) -> tuple[dict, Path | None]:
    """What `config.encoder_weights` and `config.decoder_weights` name, before anything is prepared.

    Returns:
      Params by half, and the vocabulary file of the encoder, which lies beside its weights; {} and None for "".

    Raises:
      UserError: a file cannot be had or read, or does not fit `config.model`; training from scratch is one way out.
    """
    if not (config.encoder_weights or config.decoder_weights):
        return {}, None
    loaded, vocabulary, model = {}, None, config.model
    sizes = {
        "encoder": {**model.encoder, "vocab_size": model.text_vocab_size},
        "decoder": dict(model.decoder),
    }
    for half, module, name in (("encoder", bert, "bert"), ("decoder", gpt2, "gpt2")):
        source = config[f"{half}_weights"]
        if not source:
            continue
        try:
            loaded[name] = module.load(source, sizes[half], f"config.model.{half}")
            if half == "encoder":
                vocabulary = find_vocabulary(source)
                vocabularies.read_vocabulary(vocabulary, model.text_vocab_size)
        except UserError as error:
            raise UserError(f"{error}; or train from scratch: config.{half}_weights=''") from None
    return loaded, vocabulary


def find_vocabulary(source: str | Path) -> Path:
    """The vocabulary of released weights, and beside it what says how to read a plain one, where there is such.

    Raises:
      UserError: there is no vocabulary to be had.
    """
    path = hub.find_beside(source, vocabularies.FILES)
    if path.suffix == ".txt":
        with suppress(UserError):  # not every release has one
            hub.find_beside(source, (vocabularies.SETTINGS,))
    return path


def put(loaded: dict, params: dict) -> dict:
    """Params with those that were loaded in their places; says which were loaded and which start anew."""
    if not loaded:
        return params
    flat, given = flatten_dict(params, sep="/"), flatten_dict(loaded, sep="/")

    def part_of(name):
        first, *rest = name.split("/")
        if first not in loaded:
            return first
        return "cross attention" if "cross_attn" in name else f"{first}/{rest[0]}"

    new = sorted({part_of(name) for name in flat.keys() - given.keys()})
    print(f"released weights: {len(given)} parameters; starting anew: {', '.join(new)}", file=sys.stderr)
    return unflatten_dict({**flat, **jax.tree.map(jax.numpy.asarray, given)}, sep="/")
