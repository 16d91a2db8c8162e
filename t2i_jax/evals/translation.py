"""How well a translator predicts a split's tokens, and what it draws when left to itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grain
import jax
import numpy as np

from t2i_jax.data import pipeline
from t2i_jax.evals import tokens
from t2i_jax.losses import cross_entropy
from t2i_jax.pipelines.batches import fetch, split_rows
from t2i_jax.sampling.decoding import sample_ids


def evaluator(
    validation: grain.MapDataset,
    baselines: dict[str, float],
    transform: Callable,
    *,
    predict: Callable,
    sample: Callable,
    batch_size: int,
    temperature: float,
    drawn: int = 250,
) -> Callable[[Any], dict]:
    """Scores of parameters against the unigram and bigram baselines of the token data.

    Args:
      validation: token dataset.
      baselines: of the data, such as `encode.Encoded.baselines`; they stand among the scores.
      transform: example -> arrays (`TokenTask.transform`).
      predict: `(params, batch) -> logits [B, N, K]` under teacher forcing.
      sample: `(params, batch, keys) -> ids [B, N]`, free running.
      batch_size: most pictures that `predict` and `sample` are given at a time.
      temperature: that `sample` draws with; the teacher-forced draws use it too, but no guidance and no filter.
      drawn: pictures that the statistics look at.

    Returns:
      `params -> scores`: `nats` (cross entropy a token) over the whole split beside its baselines, and `entropy`,
      `longest_run`, `distinct` (see `tokens.statistics`) of the data itself, of teacher-forced and of free-running
      draws at the same temperature. Rows are split over the devices on which the parameters lie.
    """
    drawn, size = min(drawn, len(validation)), min(batch_size, len(validation))
    data_ids = np.stack([validation[i]["ids"] for i in range(drawn)])

    @partial(jax.jit, static_argnames="draw")
    def force(params, batch, keys, *, draw: bool):
        logits = predict(params, batch)
        nats = cross_entropy(logits, batch["ids"])
        if not draw:
            return nats, None
        draw_ids = partial(sample_ids, temperature=temperature, top_k=0, top_p=1.0, min_p=0.0)
        position_keys = jax.vmap(partial(jax.random.split, num=logits.shape[1]))(keys)
        return nats, jax.vmap(draw_ids, 1, 1)(position_keys, logits)

    def evaluate(params):
        nats, forced, free = [], [], []
        keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), drawn)))
        passes = pipeline.one_pass(validation, transform, size)
        for start, (batch, count) in zip(range(0, len(validation), size), passes, strict=True):
            key_data = keys[np.minimum(np.arange(start, start + size), drawn - 1)]
            batch, key_data = split_rows((batch, key_data), params)
            own_keys = jax.random.wrap_key_data(key_data)
            batch_nats, ids = force(params, batch, own_keys, draw=start < drawn)
            nats.append(fetch(batch_nats)[:count])
            if start < drawn:
                forced.append(fetch(ids)[:size])
                free.append(fetch(sample(params, batch, own_keys))[:size])
        forced, free = (np.concatenate(ids)[:drawn] for ids in (forced, free))
        scores = {"nats": float(np.mean(np.concatenate(nats))), **baselines}
        for name, ids in {"data": data_ids, "teacher_forced": forced, "free_running": free}.items():
            scores |= {f"{name}/{key}": value for key, value in tokens.statistics(ids).items()}
        return scores

    return evaluate
