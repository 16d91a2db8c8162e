"""What tasks over image tokens share: datasets, captions, and the loss of predicted ids."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import losses
from t2i_jax.data import token_cache
from t2i_jax.data.text import CaptionReader, build_word_pieces


def word_pieces(tokens_dir, digest: str, max_size: int):
    """A text tokenizer from the captions of the training tokens (see `build_word_pieces`)."""
    captions = token_cache.read_tokens(tokens_dir / "train", digest)[1]
    return build_word_pieces(chain.from_iterable(captions), max_size)


def open_splits(
    transform: Callable, config, tokens_dir, digest: str, reader: CaptionReader
) -> tuple[dict, Callable]:
    """Token datasets by split, and the transform from an example to arrays.

    Args:
      transform: `(example, rng, *, reader, config) -> arrays`, the task's.
      config: of the run.
      tokens_dir: folder that holds one token cache a split.
      digest: of the tokenizer that made them.
      reader: of captions.

    Returns:
      `{"train": ..., "validation": ...}` and `transform(example, rng)`.
    """
    splits = {split: token_cache.open_tokens(tokens_dir / split, digest) for split in ("train", "validation")}
    return splits, partial(transform, reader=reader, config=config)


def read_caption(example: dict, rng: np.random.Generator, *, reader: CaptionReader, config) -> dict:
    """The arrays of one example but for a model's own inputs; of several captions one is drawn.

    Returns:
      `ids` int32 [N] in [0, K), `text_ids` int32 [S], `text_mask` bool [S], `null` bool (the caption is dropped,
      with probability `data.caption_dropout`).
    """
    captions = example["captions"]  # drawn only where there is a choice
    text_ids, text_mask = reader.encode(captions[rng.integers(len(captions)) if len(captions) > 1 else 0])
    null = rng.random() < config.data.caption_dropout
    return {"ids": example["ids"], "text_ids": text_ids, "text_mask": text_mask, "null": null}


def project(rows: np.ndarray, width: int, key) -> jax.Array:
    """One random projection of rows [M, C] to [M, width], values about as large: rows that are alike stay so."""
    return rows @ jax.random.normal(key, (rows.shape[1], width)) / rows.shape[1] ** 0.5


def prediction_loss(logits, ids) -> tuple[jax.Array, dict]:
    """Cross entropy of ids [B, N] in nats a token, and the share that is the likeliest, from logits [B, N, K]."""
    loss = jnp.mean(losses.cross_entropy(logits, ids))
    return loss, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == ids)}
