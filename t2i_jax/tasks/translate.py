"""Translate captions into a tokenizer's image tokens."""

from functools import partial

import jax
import numpy as np

from t2i_jax.data.text import CaptionReader
from t2i_jax.models.translator import shift_right
from t2i_jax.tasks.tokens import open_splits, prediction_loss, project, read_caption


def transform(example: dict, rng: np.random.Generator, *, reader: CaptionReader, config) -> dict:
    """Arrays of one example; of several captions one is drawn.

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


def start(model, params, codebook: np.ndarray, places: np.ndarray, key) -> dict:
    """Params that begin with what the tokenizer knows of its tokens.

    Token embedding and head are one random projection of the codebook: codes that look alike begin alike, so that
    what is learned of one carries over to its neighbours. Position embeddings are one of the places of the token to
    be written and of the token just read: tokens of one place begin alike, so that attention from one to the other
    is learned for all places at once.

    Args:
      params: freshly initialised.
      codebook: [K, C], the tokenizer's codes.
      places: [N, F], where its tokens stand.
      key: source of the projections.
    """
    gpt2 = params["gpt2"]
    table, positions = (gpt2[name]["embedding"] for name in ("token_embed", "position_embed"))
    codes = 0.02 * project((codebook - codebook.mean(0)) / codebook.std(), table.shape[1], key)
    just_read = np.pad(places[:-1], ((1, 0), (0, 0)))
    stood = project(np.concatenate([places, just_read], 1), table.shape[1], jax.random.fold_in(key, 1))
    embeddings = {
        "token_embed": {"embedding": table.at[: len(codes)].set(codes)},
        "position_embed": {"embedding": positions.at[: len(stood)].set(stood * (positions.std() / stood.std()))},
    }
    return {**params, "head": {**params["head"], "kernel": codes.T}, "gpt2": {**gpt2, **embeddings}}


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


def predict(model, params, variables, batch, null=None) -> dict:
    """`logits` [B, N, K] of each position, inputs intact, and captions too but in rows of `null` [B]."""
    decoder_ids = shift_right(batch["ids"], model.codebook_size)
    return {"logits": model.apply({"params": params}, batch["text_ids"], batch["text_mask"], decoder_ids, null)}
