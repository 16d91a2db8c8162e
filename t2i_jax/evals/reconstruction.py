"""What an image tokenizer keeps of a split: PSNR, codebook usage and perplexity over all of it."""

from collections.abc import Callable

import grain
import numpy as np

from t2i_jax import losses
from t2i_jax.data import pipeline
from t2i_jax.evals.tokens import entropy
from t2i_jax.pictures import pair_grid
from t2i_jax.pipelines.batches import fetch, split_rows

SHOWN = 16  # pictures in a grid


def predict_split(
    predict: Callable, params, dataset: grain.MapDataset, transform: Callable, batch_size: int = 250
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a model makes of every picture of a split.

    Args:
      predict: `(batch, its number) -> arrays` [B, ...], `image` in [0, 1] among them; compiled for one batch size.
      params: that it reads; rows are split over their devices.
      dataset, transform: the split, see `pipeline.one_pass`.
      batch_size: pictures at a time.

    Returns:
      The arrays of all pictures, with `psnr` (dB) in place of `image`; and a grid of the first 16 pictures over
      their reconstructions.
    """
    rows, grid = [], None
    for number, (batch, count) in enumerate(pipeline.one_pass(dataset, transform, batch_size)):
        found = {name: fetch(value)[:count] for name, value in predict(split_rows(batch, params), number).items()}
        images, originals = found.pop("image"), batch["image"][:count]
        rows.append({**found, "psnr": np.asarray(losses.psnr(images, originals))})
        if grid is None:
            grid = pair_grid(originals[:SHOWN], images[:SHOWN])
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, grid


def codebook_health(ids: np.ndarray, codebook_size: int) -> dict:
    """Usage and perplexity of a codebook.

    Args:
      ids: codes of any shape, in [0, K).
      codebook_size: K.

    Returns:
      `usage`, the share of codes that occur, and `perplexity`, exp of their entropy in nats: 1 when one code
      does all the work, K when all are used alike.
    """
    return {"usage": len(np.unique(ids)) / codebook_size, "perplexity": float(np.exp(entropy(ids)))}


def evaluate(
    predict: Callable, params, dataset: grain.MapDataset, transform: Callable, codebook_size: int
) -> tuple[dict, dict]:
    """Score a tokenizer on every picture of a split.

    Args:
      predict: as of `predict_split`; its arrays are `image`, `ids` [B, N], and `lpips` where that is asked for.
      params, dataset, transform: see `predict_split`.
      codebook_size: K.

    Returns:
      Scores `psnr` (mean over pictures, dB), `usage`, `perplexity`, and the mean of `lpips` where there is any; and
      the grid of `predict_split`.
    """
    whole, grid = predict_split(predict, params, dataset, transform)
    ids = whole.pop("ids")
    scores = {name: float(np.mean(values)) for name, values in whole.items()} | codebook_health(ids, codebook_size)
    return scores, {"reconstructions": grid}
