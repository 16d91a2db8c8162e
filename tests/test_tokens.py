"""Token baselines and statistics against slow implementations, a chain of known entropy, and hand counts."""

import math
from collections import Counter

import numpy as np
import pytest

from t2i_jax.evals import tokens
from t2i_jax.evals.reconstruction import codebook_health


def random_ids(pictures, length, size, seed):
    """Skewed, so that some codes never occur and others often do."""
    rng = np.random.default_rng(seed)
    return (size * rng.random((pictures, length)) ** 2.5).astype(np.int32)


def baselines(train, validation, size):
    return tokens.baselines([train], [validation], size)


def slow_unigram(train, size):
    counts = Counter(int(code) for row in train for code in row)
    total = sum(counts.values()) + size
    return {code: (counts[code] + 1) / total for code in range(size)}


def slow_bigram(train, validation, size):
    unigram, pairs, contexts = slow_unigram(train, size), Counter(), Counter()
    for row in train.tolist():
        for before, code in zip(["BOS", *row], row, strict=False):
            pairs[before, code] += 1
            contexts[before] += 1
    best = math.inf
    for prior in tokens.PRIORS:
        nats = []
        for row in validation.tolist():
            for before, code in zip(["BOS", *row], row, strict=False):
                share = (pairs[before, code] + prior * unigram[code]) / (contexts[before] + prior)
                nats.append(-math.log(share))
        best = min(best, sum(nats) / len(nats))
    return best


def markov_chain(transitions, pictures, length, seed):
    """Rows of a chain, each from code 0's row of transitions."""
    rng, ids = np.random.default_rng(seed), np.zeros((pictures, length + 1), np.int64)
    for i in range(length):
        ids[:, i + 1] = (rng.random((pictures, 1)) > transitions[ids[:, i]].cumsum(-1)).sum(-1)
    return ids[:, 1:].astype(np.int32)


def test_unigram_by_hand():
    """Counts 3, 1, 0 and one more of each: 4/7, 2/7, 1/7."""
    nats = baselines(np.array([[0, 0], [0, 1]]), np.array([[0, 2]]), 3)
    assert nats["unigram_nats"] == pytest.approx(-(math.log(4 / 7) + math.log(1 / 7)) / 2)


@pytest.mark.parametrize(("size", "pictures"), [(7, 30), (50, 20), (300, 8)])
def test_unigram_and_bigram_equal_slow_ones(size, pictures):
    train, validation = random_ids(pictures, 9, size, 1), random_ids(6, 9, size, 2)
    unigram = slow_unigram(train, size)
    expected = {
        "unigram_nats": -np.mean([math.log(unigram[int(code)]) for code in validation.ravel()]),
        "bigram_nats": slow_bigram(train, validation, size),
    }
    assert baselines(train, validation, size) == pytest.approx(expected)
    parts = (np.array_split(train, 5), np.array_split(validation, 3))
    assert tokens.baselines(*parts, size) == pytest.approx(expected)


def test_a_picture_s_first_token_does_not_see_the_picture_before():
    """Pictures start with code 0 always, and end with a random one."""
    ids = np.stack([np.zeros(400, np.int32), random_ids(400, 1, 8, 0)[:, 0]], 1)
    entropy_of_last = tokens.statistics(ids[:, 1:])["entropy"]
    assert baselines(ids, ids, 8)["bigram_nats"] == pytest.approx(entropy_of_last / 2, abs=0.02)


def test_bigram_beats_unigram_and_approaches_the_entropy_of_a_chain():
    size = 12
    transitions = np.random.default_rng(0).dirichlet(np.full(size, 0.2), size)
    train, validation = (markov_chain(transitions, count, 32, seed) for count, seed in ((4000, 1), (500, 2)))
    before = np.concatenate([np.zeros((500, 1), int), validation[:, :-1]], 1)
    true = -np.mean(np.log(transitions[before, validation]))
    nats = baselines(train, validation, size)
    assert true - 0.002 < nats["bigram_nats"] < true + 0.005
    assert nats["bigram_nats"] < nats["unigram_nats"] - 0.3


def test_statistics_by_hand():
    statistics = tokens.statistics(np.array([[0, 0, 0, 1], [2, 1, 2, 2]]))
    assert statistics["entropy"] == pytest.approx(-(2 * 3 / 8 * math.log(3 / 8) + 1 / 4 * math.log(1 / 4)))
    assert statistics["longest_run"] == (3 + 2) / 2
    assert statistics["distinct"] == 2


@pytest.mark.parametrize(
    ("row", "longest", "distinct"),
    [([5], 1, 1), ([5, 5, 5], 3, 1), ([1, 2, 3], 1, 3), ([1, 2, 2, 2, 1], 3, 2), ([7, 1, 1], 2, 2)],
)
def test_runs_at_the_ends(row, longest, distinct):
    statistics = tokens.statistics(np.array([row]))
    assert (statistics["longest_run"], statistics["distinct"]) == (longest, distinct)


@pytest.mark.parametrize(
    ("ids", "usage", "perplexity"),
    [([3, 3, 3], 0.25, 1), ([0, 0, 1, 1], 0.5, 2), ([0, 1, 2, 3], 1, 4), ([0, 1, 2, 2], 0.75, 2**1.5)],
)
def test_codebook_health_by_hand(ids, usage, perplexity):
    assert codebook_health(np.array(ids), 4) == pytest.approx({"usage": usage, "perplexity": perplexity})
    assert codebook_health(np.array(ids)[None, :, None], 4)["usage"] == usage
