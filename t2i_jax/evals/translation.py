"""How well a translator predicts a split's tokens, and what it draws when left to itself."""

from collections.abc import Callable
from functools import partial

import grain
import jax
import numpy as np

from t2i_jax.data import pipeline
from t2i_jax.evals import tokens
from t2i_jax.losses import cross_entropy
from t2i_jax.pipelines.batches import fetch, split_rows
from t2i_jax.sampling.decoding import sample_ids


class TranslationEvaluator:
    """Scores against the unigram and bigram baselines of the token data.

    Rows are split over the devices on which parameters lie.

    Args:
      validation: token dataset.
      baselines: of the data, such as `encode.Encoded.baselines`; they stand among the scores.
      transform: example -> arrays (`TokenTask.transform`).
      predict: `(params, batch) -> logits [B, N, K]` under teacher forcing.
      sample: `(params, batch, keys) -> ids [B, N]`, free running.
      codebook_size: K.
      batch_size: most pictures that `predict` and `sample` are given at a time.
      temperature: that `sample` draws with; the teacher-forced draws use it too, but no guidance and no filter.
      drawn: pictures that the statistics look at.
    """

    def __init__(
        self,
        validation: grain.MapDataset,
        baselines: dict[str, float],
        transform: Callable,
        *,
        predict: Callable,
        sample: Callable,
        codebook_size: int,
        batch_size: int,
        temperature: float,
        drawn: int = 250,
    ):
        self._validation, self._transform, self._sample = validation, transform, sample
        self._codebook_size = codebook_size
        self._drawn = min(drawn, len(validation))
        self._batch_size = min(batch_size, len(validation))
        self._data_ids = np.stack([validation[i]["ids"] for i in range(self._drawn)])
        self._baselines = baselines

        @partial(jax.jit, static_argnames="draw")
        def forced(params, batch, keys, *, draw: bool):
            logits = predict(params, batch)
            nats = cross_entropy(logits, batch["ids"])
            if not draw:
                return nats, None
            draw_ids = partial(sample_ids, temperature=temperature, top_k=0, top_p=1.0, min_p=0.0)
            position_keys = jax.vmap(partial(jax.random.split, num=logits.shape[1]))(keys)
            return nats, jax.vmap(draw_ids, 1, 1)(position_keys, logits)

        self._forced = forced

    def __call__(self, params) -> dict:
        """Scores of some parameters.

        Returns:
          `nats` (cross entropy a token) over the whole split beside its baselines, and
          `entropy`, `longest_run`, `distinct` (see `tokens.statistics`) of the data itself, of teacher-forced
          and of free-running draws at the same temperature.
        """
        nats, forced, free = [], [], []
        keys, size = jax.random.split(jax.random.key(0), self._drawn), self._batch_size
        keys = np.asarray(jax.random.key_data(keys))
        passes = pipeline.one_pass(self._validation, self._transform, size)
        for start, (batch, count) in zip(range(0, len(self._validation), size), passes, strict=True):
            key_data = keys[np.minimum(np.arange(start, start + size), self._drawn - 1)]
            batch, key_data = split_rows((batch, key_data), params)
            own_keys = jax.random.wrap_key_data(key_data)
            batch_nats, ids = self._forced(params, batch, own_keys, draw=start < self._drawn)
            nats.append(fetch(batch_nats)[:count])
            if start < self._drawn:
                forced.append(fetch(ids)[:size])
                free.append(fetch(self._sample(params, batch, own_keys))[:size])
        forced, free = (np.concatenate(ids)[: self._drawn] for ids in (forced, free))
        scores = {"nats": float(np.mean(np.concatenate(nats))), **self._baselines}
        samples = {"data": self._data_ids, "teacher_forced": forced, "free_running": free}
        for name, ids in samples.items():
            statistics = tokens.statistics(ids, self._codebook_size)
            scores |= {f"{name}/{key}": value for key, value in statistics.items()}
        return scores
