"""What a model of tokens is worth before any picture is drawn: baselines and statistics of token sequences.

Letters: P pictures, N tokens a picture, K codebook size. All entropies in nats.
"""

import numpy as np

PRIORS = (1, 4, 16, 64, 256)  # strengths of the bigram's fall-back that are tried


def unigram_nats(train: np.ndarray, validation: np.ndarray, codebook_size: int) -> float:
    """Cross entropy per token of codes [P, N] under the frequencies of `train` (one count added to each)."""
    return float(-np.mean(np.log(_unigram(train, codebook_size)[validation])))


def bigram_nats(train: np.ndarray, validation: np.ndarray, codebook_size: int) -> float:
    """Cross entropy per token under the best bigram model of `train`, each picture starting from BOS = K.

    Counts fall back on the unigram with a Dirichlet prior (MacKay & Peto 1995, eq. 13). Its strength is the
    one that serves `validation` best: a baseline should be hard to beat.
    """
    pairs = _pairs(train, codebook_size)
    kinds, counts = np.unique(pairs, return_counts=True)
    contexts = np.bincount(pairs // codebook_size, minlength=codebook_size + 1)
    asked = _pairs(validation, codebook_size)
    place = np.minimum(np.searchsorted(kinds, asked), len(kinds) - 1)
    pair_counts = np.where(kinds[place] == asked, counts[place], 0)
    context_counts = contexts[asked // codebook_size]
    unigram = _unigram(train, codebook_size)[validation.reshape(-1)]
    return min(
        float(-np.mean(np.log((pair_counts + prior * unigram) / (context_counts + prior)))) for prior in PRIORS
    )


def uniform_ids(count: int, num_tokens: int, codebook_size: int, seed: int) -> np.ndarray:
    """Ids [count, N], each of the K codes as likely as any other: the prior that a VQ-VAE is trained with.

    Its pictures are what is to be had without learning which codes go together; van den Oord et al. 2017,
    section 3.2, keep the prior uniform in training and then fit another to draw from.
    """
    return np.random.default_rng(seed).integers(0, codebook_size, (count, num_tokens), np.int32)


def statistics(ids: np.ndarray, codebook_size: int) -> dict:
    """How varied sequences are; a collapsed sampler shows here first.

    Args:
      ids: codes [P, N] in [0, K).
      codebook_size: K.

    Returns:
      `entropy` of the codes over all pictures, `longest_run` of one code and number of `distinct` codes,
      both means over pictures.
    """
    shares = np.bincount(ids.reshape(-1), minlength=codebook_size) / ids.size
    used = shares[shares > 0]
    return {
        "entropy": float(-np.sum(used * np.log(used))),
        "longest_run": float(np.mean([_longest_run(row) for row in ids])),
        "distinct": float(np.mean([len(np.unique(row)) for row in ids])),
    }


def _longest_run(row: np.ndarray) -> int:
    borders = np.flatnonzero(np.diff(row)) + 1
    return int(np.diff(np.concatenate([[0], borders, [len(row)]])).max())


def _unigram(ids: np.ndarray, codebook_size: int) -> np.ndarray:
    counts = np.bincount(ids.reshape(-1), minlength=codebook_size) + 1
    return counts / counts.sum()


def _pairs(ids: np.ndarray, codebook_size: int) -> np.ndarray:
    """Each token with the one before it, as one number: before * K + token."""
    before = np.pad(ids[:, :-1].astype(np.int64), ((0, 0), (1, 0)), constant_values=codebook_size)
    return (before * codebook_size + ids).reshape(-1)
