"""A frozen text encoder: its outputs are computed once for each distinct caption and kept beside the tokens."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from t2i_jax import files, hosts, progress, runs
from t2i_jax.data import text_features
from t2i_jax.data.text import TextTokenizer
from t2i_jax.lr_multipliers import is_frozen
from t2i_jax.models.translator import text_encoder
from t2i_jax.pipelines.batches import fetch, in_batches
from t2i_jax.tasks import pretrained

FOLDER = "text_features"


def is_constant(config, model) -> bool:
    """Whether the encoder makes the same of a caption at every step: nothing in it is trained, or dropped."""
    return is_untrained(config, model) and not (
        config.model.encoder.dropout or config.model.encoder.attention_dropout
    )


def is_untrained(config, model) -> bool:
    """Whether `config.optim.lr_multipliers` freezes all of the encoder."""
    if not pretrained.fits(model) or 0 not in config.optim.lr_multipliers.values():
        return False
    ids = jnp.zeros((1, 1), jnp.int32)
    params = jax.eval_shape(text_encoder(model).init, jax.random.key(0), ids, ids == 0)["params"]
    return all(is_frozen(config.optim, f"bert/{path}") for path in flatten_dict(params, sep="/"))


def spec(model, size: int, length: int) -> jax.ShapeDtypeStruct:
    """Shape and type of the outputs for so many captions of `length` word pieces."""
    encoder = text_encoder(model)
    return jax.ShapeDtypeStruct((size, length, encoder.width), jnp.dtype(encoder.dtype))


def load(
    model,
    params: dict,
    reader: TextTokenizer,
    captions: Iterable[str],
    *,
    digest: str,
    run: str | Path,
    folder: Path,
) -> text_features.TextFeatures:
    """The encoder's outputs for captions, computed where they are missing or of something else.

    The first process of several computes, the others wait for it. So does a second training for the first one.

    Args:
      model, params: a translator and its parameters.
      reader: the run's text tokenizer.
      captions: each as often as it occurs; gone through only where the outputs are computed.
      digest: of the captions and of what makes ids of them.
      run: of the tokenizer.
      folder: of its tokens; the outputs go into the folder `text_features` there.

    Raises:
      OSError: the disk is full or read-only.
    """
    encoder, folder = text_encoder(model), folder / FOLDER
    own = jax.tree.map(fetch, params["bert"])
    stamp = {"encoder": digest_of(encoder, own), "captions": digest}

    def compute():
        if not text_features.stale(folder, **stamp):
            return
        with files.lock(run, wait=True):
            reason = text_features.stale(folder, **stamp)  # another process may have been faster
            if reason and reason != text_features.MISSING:
                print(f"text features in {folder} are {reason}: encoding captions again", file=sys.stderr)
            if reason:
                # Of several processes, only the devices of this one take part.
                encode = _encoding(encoder, params["bert"] if hosts.alone() else own)
                text_features.write_features(folder, _rows(reader, captions), encode, **stamp)

    hosts.on_first(compute)
    return text_features.TextFeatures(folder)


def digest_of(encoder, params: dict) -> str:
    """sha256 of an encoder: of its parameters, and of those fields that do not show in their shapes."""
    return runs.digest_of(flatten_dict(params, sep="/"), f"{encoder.heads} heads, {encoder.dtype}")


def _encoding(encoder, params: dict):
    apply = partial(jax.jit(lambda params, ids, mask: encoder.apply({"params": params}, ids, mask)), params)
    return lambda ids, masks: in_batches(apply, ids, masks, like=params)


def _rows(reader: TextTokenizer, captions: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for caption in progress.bar(captions, "encoding captions", unit="captions", unit_scale=True):
        ids, mask, _ = reader.encode([caption])
        yield ids[0], mask[0]
