"""Translate captions into a tokenizer's image tokens."""

from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import losses
from t2i_jax.data import token_cache
from t2i_jax.data.text import CaptionReader, build_word_pieces
from t2i_jax.models.translator import shift_right
from t2i_jax.sampling.autoregressive import sample_tokens


def word_pieces(tokens_dir, digest: str, max_size: int):
    """A text tokenizer from the captions of the training tokens (see `build_word_pieces`)."""
    captions = token_cache.read_tokens(tokens_dir / "train", digest)[1]
    return build_word_pieces(chain.from_iterable(captions), max_size)


def inputs(config, tokens_dir, digest: str, reader: CaptionReader) -> tuple[dict, object]:
    """Token datasets by split, and the transform from an example to arrays.

    Args:
      config: of the run.
      tokens_dir: folder that holds one token cache a split.
      digest: of the tokenizer that made them.
      reader: of captions.

    Returns:
      `{"train": ..., "validation": ...}` and `transform(example, rng)`, see there.
    """
    splits = {split: token_cache.open_tokens(tokens_dir / split, digest) for split in ("train", "validation")}
    return splits, partial(transform, reader=reader, config=config)


def transform(example: dict, rng: np.random.Generator, *, reader: CaptionReader, config) -> dict:
    """Arrays of one example; of several captions one is drawn.

    Returns:
      `ids` int32 [N] in [0, K), `decoder_ids` int32 [N] in [0, K] (BOS = K, shifted right, a share
      `data.code_noise` of the codes replaced by random ones: taming-transformers' pkeep), `text_ids`
      int32 [S], `text_mask` bool [S], `null` bool (the caption is dropped, with probability
      `data.caption_dropout`).
    """
    ids, size = example["ids"], config.model.codebook_size
    noisy = np.where(rng.random(len(ids)) < config.data.code_noise, rng.integers(0, size, len(ids)), ids)
    captions = example["captions"]  # drawn only where there is a choice
    text_ids, text_mask = reader.encode(captions[rng.integers(len(captions)) if len(captions) > 1 else 0])
    return {
        "ids": ids,
        "decoder_ids": np.concatenate([[size], noisy[:-1]]).astype(np.int32),
        "text_ids": text_ids,
        "text_mask": text_mask,
        "null": rng.random() < config.data.caption_dropout,
    }


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

    def project(rows, key):
        return rows @ jax.random.normal(key, (rows.shape[1], table.shape[1])) / rows.shape[1] ** 0.5

    codes = 0.02 * project((codebook - codebook.mean(0)) / codebook.std(), key)
    just_read = np.pad(places[:-1], ((1, 0), (0, 0)))
    stood = project(np.concatenate([places, just_read], 1), jax.random.fold_in(key, 1))
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
    loss = jnp.mean(losses.cross_entropy(logits, batch["ids"]))
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["ids"])
    return loss, (variables, {"loss": loss, "accuracy": accuracy})


def predict(model, params, variables, batch) -> dict:
    """`logits` [B, N, K] of each position under teacher forcing, captions and inputs intact."""
    decoder_ids = shift_right(batch["ids"], model.codebook_size)
    return {"logits": model.apply({"params": params}, batch["text_ids"], batch["text_mask"], decoder_ids)}


@partial(jax.jit, static_argnames=("model", "guided"))
def sample(model, params, text_ids, text_mask, keys, settings: dict, *, guided: bool):
    """Draw the image tokens of captions: one compiled function, whatever the settings.

    Args:
      model: a `models.translator.Model`.
      params: its parameters.
      text_ids: [B, S] in [0, V).
      text_mask: [B, S].
      keys: [B], one random key a picture.
      settings: the fields of `sampling.settings.Sampling`.
      guided: False leaves out the unconditional half of the batch; for guidance scale 1.

    Returns:
      int32 ids [B, N] in [0, K).
    """
    bound = partial(model.apply, {"params": params})
    settings, null = dict(settings), jnp.zeros(len(text_ids), bool)
    if guided:
        text_ids, text_mask = jnp.tile(text_ids, (2, 1)), jnp.tile(text_mask, (2, 1))
        null = jnp.concatenate([null, ~null])
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
