"""Scores of a translator: the same however many pictures are looked at together."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.evals import tokens
from t2i_jax.evals.translation import evaluator

PICTURES, N, K = 11, 6, 5
BASELINES = {"unigram_nats": 3.0, "bigram_nats": 2.0}


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, K, (PICTURES, N), np.int32)


def predict(params, batch):
    return params[batch["ids"]]


def sample(params, batch, keys):
    return jax.vmap(lambda key, row: jax.random.randint(key, (N,), 0, 1 + row[0]))(keys, batch["ids"])


def scores_of(ids, params, batch_size, drawn):
    rows, sizes = [{"ids": row} for row in ids], set()

    def sample_batch(params, batch, keys):
        sizes.add((len(keys), len(batch["ids"])))
        return sample(params, batch, keys)

    evaluate = evaluator(
        grain.MapDataset.source(rows), BASELINES, lambda example, rng: example,
        predict=predict, sample=sample_batch, batch_size=batch_size, temperature=1.0, drawn=drawn,
    )  # fmt: skip
    return evaluate(params), sizes


@pytest.mark.parametrize("drawn", [4, 7, 250])
def test_scores_do_not_depend_on_the_batch(ids, drawn):
    params = jax.random.normal(jax.random.key(1), (K, K))
    whole, sizes = scores_of(ids, params, 100, drawn)
    assert sizes == {(PICTURES, PICTURES)}
    assert BASELINES.items() <= whole.items()
    assert whole["data/distinct"] == tokens.statistics(ids[:drawn])["distinct"]
    for size in (1, 3, 4):
        scores, sizes = scores_of(ids, params, size, drawn)
        assert sizes == {(size, size)}
        assert scores == pytest.approx(whole, rel=1e-6)

    nats = -jax.nn.log_softmax(params)[ids, ids].mean().item()
    assert whole["nats"] == pytest.approx(nats, rel=1e-6)
    keys = jax.random.split(jax.random.key(0), min(drawn, PICTURES))
    free = sample(params, {"ids": jnp.array(ids[: len(keys)])}, keys)
    expected = tokens.statistics(np.asarray(free))
    assert {name: whole[f"free_running/{name}"] for name in expected} == pytest.approx(expected)
