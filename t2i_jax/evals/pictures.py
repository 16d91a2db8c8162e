"""The pictures that judges look at: sampled, reconstructed, and of random tokens."""

from collections.abc import Sequence

import numpy as np

from t2i_jax.evals import tokens
from t2i_jax.pictures import to_uint8

PICTURES = 4  # a prompt


def sample(pipe, captions: Sequence[str], seed: int, candidates: int = 1) -> np.ndarray:
    """One picture a caption, uint8 [B, H, W, C]; where captions repeat, pictures do not.

    Args:
      pipe: a `pipelines.Translator`.
      captions: B texts.
      seed: of the pictures.
      candidates: sampled for each caption; the one that its caption makes likelier most is taken.
    """
    repeated = [caption for caption in captions for _ in range(candidates)]
    ids = pipe.draw_ids(repeated, np.arange(len(repeated)), seed, pipe.sampling)
    if candidates > 1:
        ratios = pipe.likelihood_ratios(repeated, ids).reshape(-1, candidates)
        ids = ids.reshape(*ratios.shape, -1)[np.arange(len(captions)), ratios.argmax(1)]
    return to_uint8(pipe.tokenizer.detokenize(ids))


def sample_uniform(tokenizer, count: int, seed: int) -> np.ndarray:
    """Pictures uint8 [count, H, W, C] of uniform ids: the floor, as reconstructions are the ceiling."""
    ids = tokens.uniform_ids(count, tokenizer.num_tokens, tokenizer.codebook_size, seed)
    return to_uint8(tokenizer.detokenize(ids))


def reconstruct(tokenizer, images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [..., H, W, C] after tokenizing and detokenizing."""
    flat = images.reshape(-1, *images.shape[-3:])
    return to_uint8(tokenizer.detokenize(tokenizer.tokenize(flat))).reshape(images.shape)
