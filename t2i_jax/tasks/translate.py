"""Translate captions into a tokenizer's image tokens."""

from functools import partial

import numpy as np

from t2i_jax.data.text import CaptionReader
from t2i_jax.models.translator import shift_right
from t2i_jax.tasks.tokens import open_splits, prediction_loss, project_codes, read_caption


def transform(example: dict, rng: np.random.Generator, *, reader: CaptionReader, config) -> dict:
    """Arrays of one example.

    Returns:
      Those of `tokens.read_caption`, and `decoder_ids` int32 [N] in [0, K] (BOS = K, shifted right, a share
      `data.code_noise` of the codes replaced by random ones: taming-transformers' pkeep).
    """
    ids, size = example["ids"], config.model.codebook_size
    noisy = np.where(rng.random(len(ids)) < config.data.code_noise, rng.integers(0, size, len(ids)), ids)
    decoder_ids = np.concatenate([[size], noisy[:-1]]).astype(np.int32)
    return {**read_caption(example, rng, reader=reader, config=config), "decoder_ids": decoder_ids}


inputs = partial(open_splits, transform)


def init(model, key, batch: dict) -> dict:
    """Freshly initialised variables."""
    return model.init(key, batch["text_ids"], batch["text_mask"], batch["decoder_ids"], batch["null"])


def start(model, params, codebook: np.ndarray, key) -> dict:
    """Params whose token embedding and head begin as one random projection of the codebook (`project_codes`).

    Args:
      params: freshly initialised.
      codebook: [K, C], the tokenizer's codes.
      key: source of the projection.
    """
    table = params["gpt2"]["token_embed"]["embedding"]
    projected = project_codes(codebook, table.shape[1], key)
    rows = table.at[: len(codebook)].set(0.02 * projected)
    head = {**params["head"], "kernel": 0.02 * projected.T}
    gpt2 = {**params["gpt2"], "token_embed": {**params["gpt2"]["token_embed"], "embedding": rows}}
    return {**params, "gpt2": gpt2, "head": head}


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the image tokens under teacher forcing, in nats a token.

    Args:
      batch: see `transform`.

    Returns:
      loss, (variables, metrics).
    """
    logits = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch["decoder_ids"],
        batch["null"],
        train=train,
        rngs=rngs,
    )
    loss, metrics = prediction_loss(logits, batch["ids"])
    return loss, (variables, metrics)


def predict(model, params, variables, batch) -> dict:
    """`logits` [B, N, K] of each position under teacher forcing, captions and inputs intact."""
    decoder_ids = shift_right(batch["ids"], model.codebook_size)
    return {"logits": model.apply({"params": params}, batch["text_ids"], batch["text_mask"], decoder_ids)}
