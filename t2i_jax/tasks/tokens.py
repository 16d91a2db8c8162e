"""What tasks over image tokens share: datasets, captions, the loss of predicted ids, and drawing them."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import losses
from t2i_jax.data import token_cache
from t2i_jax.data.text import CaptionReader, build_word_pieces
from t2i_jax.nn.stack import unstack
from t2i_jax.sampling.autoregressive import sample_tokens


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


@partial(jax.jit, static_argnames=("model", "guided"))
def sample(model, params, text_ids, text_mask, keys, settings: dict, *, guided: bool, null):
    """Draw the image tokens of captions: one compiled function, whatever the settings.

    Args:
      model: with `encode`, `init_cache` and `decode_step`, such as a `models.translator.Model`.
      params: its parameters.
      text_ids: [B, S] in [0, V).
      text_mask: [B, S].
      keys: [B], one random key a picture.
      settings: the fields of `sampling.settings.Sampling`.
      guided: False leaves out the unconditional half of the batch; for guidance scale 1.
      null: [B], True for pictures of no caption; guidance does not change those.

    Returns:
      int32 ids [B, N] in [0, K).
    """
    bound = partial(model.apply, {"params": unstack(params)})
    settings = dict(settings)
    if guided:
        text_ids, text_mask = jnp.tile(text_ids, (2, 1)), jnp.tile(text_mask, (2, 1))
        null = jnp.concatenate([null, jnp.ones_like(null)])
    else:
        del settings["guidance_scale"]
    memory, memory_mask = bound(text_ids, text_mask, null, method="encode")
    return sample_tokens(
        partial(bound, method="decode_step"),
        bound(memory, memory_mask, method="init_cache"),
        keys,
        length=model.num_tokens,
        start_id=model.codebook_size,
        **settings,
    )
