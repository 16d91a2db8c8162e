"""Learn which image tokens go together: a prior over a tokenizer's codes, given a caption or nothing."""

from functools import partial

import numpy as np

from t2i_jax.tasks.tokens import open_splits, prediction_loss, project, read_caption

inputs = partial(open_splits, read_caption)


def init(model, key, batch: dict) -> dict:
    """Freshly initialised variables."""
    return model.init(key, batch["text_ids"], batch["text_mask"], batch["ids"], batch["null"])


def start(model, params, codebook: np.ndarray, places: np.ndarray, key) -> dict:
    """Params whose token embedding begins as a random projection of the codebook [K, C].

    Convolutions know places by themselves.
    """
    del places
    rows = project((codebook - codebook.mean(0)) / codebook.std(), model.width, key)
    return {**params, "token_embed": {"embedding": rows}}


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the image tokens, each predicted from those before it, in nats a token.

    Args:
      batch: see `tokens.read_caption`.

    Returns:
      loss, (variables, metrics).
    """
    logits = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch["ids"],
        batch["null"],
        train=train,
        rngs=rngs,
    )
    loss, metrics = prediction_loss(logits, batch["ids"])
    return loss, (variables, metrics)


def predict(model, params, variables, batch, null=None) -> dict:
    """`logits` [B, N, K] of each position, captions intact but in rows of `null` [B]."""
    return {"logits": model.apply({"params": params}, batch["text_ids"], batch["text_mask"], batch["ids"], null)}
