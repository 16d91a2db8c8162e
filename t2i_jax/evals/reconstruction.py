"""What an image tokenizer keeps of a split: PSNR, codebook usage and perplexity over all of it."""

from collections.abc import Callable

import grain
import numpy as np

from t2i_jax import losses
from t2i_jax.data import pipeline
from t2i_jax.pictures import picture_grid, to_uint8


def codebook_health(ids: np.ndarray, codebook_size: int) -> dict:
    """Usage and perplexity of a codebook.

    Args:
      ids: codes of any shape, in [0, K).
      codebook_size: K.

    Returns:
      `usage`, the share of codes that occur, and `perplexity`, exp of their entropy in nats: 1 when one code
      does all the work, K when all are used alike.
    """
    shares = np.bincount(ids.reshape(-1), minlength=codebook_size) / ids.size
    used = shares[shares > 0]
    return {"usage": len(used) / codebook_size, "perplexity": float(np.exp(-np.sum(used * np.log(used))))}


def evaluate(
    predict: Callable,
    dataset: grain.MapDataset,
    transform: Callable,
    codebook_size: int,
    batch_size: int = 250,
) -> tuple[dict, dict]:
    """Score a tokenizer on every picture of a split.

    Args:
      predict: `batch -> {"image": [B, H, W, 3] in [0, 1], "ids": [B, N]}`, compiled for one batch size.
      dataset, transform: the split, see `pipeline.one_pass`.
      codebook_size: K.
      batch_size: pictures at a time.

    Returns:
      Scores `psnr` (mean over pictures, dB), `usage`, `perplexity`; and a grid of the first 16 pictures over
      their reconstructions.
    """
    decibels, ids, grid = [], [], None
    for batch, count in pipeline.one_pass(dataset, transform, batch_size):
        predicted = predict(batch)
        decibels.append(np.asarray(losses.psnr(predicted["image"], batch["image"]))[:count])
        ids.append(np.asarray(predicted["ids"])[:count])
        if grid is None:
            rows = np.concatenate([batch["image"][:16], np.asarray(predicted["image"])[:16]])
            grid = picture_grid(to_uint8(rows), columns=min(16, len(rows) // 2))
    scores = {"psnr": float(np.mean(np.concatenate(decibels)))}
    return scores | codebook_health(np.concatenate(ids), codebook_size), {"reconstructions": grid}
