"""The pictures that judges look at: sampled, reconstructed, and of random tokens."""

from collections.abc import Sequence

import numpy as np

from t2i_jax.evals import tokens
from t2i_jax.pictures import to_uint8
from t2i_jax.pipelines.reranking import best

PICTURES = 4  # a prompt


def sample(pipe, captions: Sequence[str], seed: int, candidates: int = 1, sampler=None) -> np.ndarray:
    """One picture a caption, uint8 [B, H, W, C]; where captions repeat, pictures do not.

    Args:
      pipe: a `pipelines.Translator`.
      captions: B texts.
      seed: of the pictures.
      candidates: sampled for each caption; the one that its caption makes likelier most is taken.
      sampler: in place of `pipe.sampling`.
    """
    repeated = [caption for caption in captions for _ in range(candidates)]
    ids = pipe.draw_ids(repeated, np.arange(len(repeated)), seed, sampler or pipe.sampling)
    if candidates > 1:
        ids = best(ids, pipe.likelihood_ratios(repeated, ids), candidates, 1)
    return to_uint8(pipe.tokenizer.detokenize(ids))


def beside(pipe, captions: Sequence[str], real: np.ndarray, seed: int, candidates: int) -> dict[str, np.ndarray]:
    """What is judged: "generated" by `sample`, "reconstructed", "real"; "uniform" ids where `pipe.beside_uniform`.

    Args:
      captions: of the P n pictures `real`, uint8 [P, n, H, W, C]; all that is returned has this shape.
      seed, candidates: see `sample`.
    """
    pictures = {
        "generated": sample(pipe, captions, seed, candidates).reshape(real.shape),
        "reconstructed": reconstruct(pipe.tokenizer, real),
        "real": real,
    }
    if pipe.beside_uniform:
        pictures["uniform"] = sample_uniform(pipe.tokenizer, len(captions), seed).reshape(real.shape)
    return pictures


def sample_uniform(tokenizer, count: int, seed: int) -> np.ndarray:
    """Pictures uint8 [count, H, W, C] of uniform ids: the floor, as reconstructions are the ceiling."""
    ids = tokens.uniform_ids(count, tokenizer.num_tokens, tokenizer.codebook_size, seed)
    return to_uint8(tokenizer.detokenize(ids))


def reconstruct(tokenizer, images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [..., H, W, C] after tokenizing and detokenizing."""
    flat = images.reshape(-1, *images.shape[-3:])
    return to_uint8(tokenizer.detokenize(tokenizer.tokenize(flat))).reshape(images.shape)
