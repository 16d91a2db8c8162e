"""What a model of tokens is worth before any picture is drawn: baselines and statistics of token sequences.

Letters: P pictures, N tokens a picture, K codebook size. All entropies in nats.
"""

from collections.abc import Iterable
from itertools import groupby

import numpy as np

PRIORS = (1, 4, 16, 64, 256)  # strengths of the bigram's fall-back that are tried


def baselines(
    train: Iterable[np.ndarray], validation: Iterable[np.ndarray], codebook_size: int
) -> dict[str, float]:
    """Cross entropy per token of `validation` under what can be counted in `train`, in nats.

    Memory grows with the distinct pairs of tokens in `validation`, and not with `train`.

    Args:
      train, validation: ids [P, N] in [0, K), a part of the images at a time.
      codebook_size: K.

    Returns:
      `unigram_nats`, under the frequencies of the codes (one count added to each), and `bigram_nats`, under the
      best bigram model, each image starting from BOS = K. Its counts fall back on the unigram with a Dirichlet
      prior (MacKay & Peto 1995, eq. 13) of the strength that serves `validation` best: a baseline should be hard
      to beat.
    """
    kinds, asked = np.zeros(0, np.int64), np.zeros(0, np.int64)  # pairs in `validation`, and how often each occurs
    for ids in validation:
        more, counts = np.unique(_pairs(ids, codebook_size), return_counts=True)
        kinds, place = np.unique(np.concatenate([kinds, more]), return_inverse=True)
        counts = np.concatenate([asked, counts])
        asked = np.zeros(len(kinds), np.int64)
        np.add.at(asked, place, counts)

    codes, contexts = np.ones(codebook_size, np.int64), np.zeros(codebook_size + 1, np.int64)
    seen = np.zeros(len(kinds), np.int64)
    for ids in train:
        pairs = np.sort(_pairs(ids, codebook_size))  # sorted, they are found several times faster
        codes += np.bincount(pairs % codebook_size, minlength=codebook_size)
        contexts += np.bincount(pairs // codebook_size, minlength=codebook_size + 1)
        place = np.minimum(np.searchsorted(kinds, pairs), len(kinds) - 1)
        seen += np.bincount(place[kinds[place] == pairs], minlength=len(kinds))

    unigram, context = (codes / codes.sum())[kinds % codebook_size], contexts[kinds // codebook_size]

    def nats(probabilities):
        return float(-np.sum(asked * np.log(probabilities)) / asked.sum())

    bigram = min(nats((seen + prior * unigram) / (context + prior)) for prior in PRIORS)
    return {"unigram_nats": nats(unigram), "bigram_nats": bigram}


def uniform_ids(count: int, num_tokens: int, codebook_size: int, seed: int) -> np.ndarray:
    """Ids [count, N], each of the K codes as likely as any other: the prior that a VQ-VAE is trained with.

    Its pictures are what is to be had without learning which codes go together; van den Oord et al. 2017,
    section 3.2, keep the prior uniform in training and then fit another to draw from.
    """
    return np.random.default_rng(seed).integers(0, codebook_size, (count, num_tokens), np.int32)


def entropy(ids: np.ndarray) -> float:
    """Entropy in nats of how often each code occurs among ids of any shape."""
    shares = np.unique(ids, return_counts=True)[1] / ids.size
    return float(-np.sum(shares * np.log(shares)))


def statistics(ids: np.ndarray) -> dict:
    """How varied sequences are; a collapsed sampler shows here first.

    Args:
      ids: codes [P, N].

    Returns:
      `entropy` of the codes over all pictures, `longest_run` of one code and number of `distinct` codes,
      both means over pictures.
    """
    return {
        "entropy": entropy(ids),
        "longest_run": float(np.mean([max(len(list(run)) for _, run in groupby(row)) for row in ids])),
        "distinct": float(np.mean([len(np.unique(row)) for row in ids])),
    }


def _pairs(ids: np.ndarray, codebook_size: int) -> np.ndarray:
    """Each token with the one before it, as one number: before * K + token."""
    before = np.pad(ids[:, :-1].astype(np.int64), ((0, 0), (1, 0)), constant_values=codebook_size)
    return (before * codebook_size + ids).reshape(-1)
