"""Inception Score (Salimans et al. 2016): are pictures clearly something, and not all the same thing?"""

import numpy as np
from jaxtyping import Float

SPLITS = 10


def scores(logits: Float[np.ndarray, "n K"], splits: int = SPLITS) -> Float[np.ndarray, " splits"]:
    """exp of the mean divergence of p(class | picture) from p(class), of consecutive parts of the pictures.

    Args:
      logits: of the 1,008 classes, without their bias, as the authors' own code takes them.
      splits: parts; at most n.

    Returns:
      One score a part, from 1 to K. The score is their mean.
    """
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return np.array([_score(part) for part in np.array_split(logs, splits)])


def _score(logs):
    shares = np.exp(logs)
    together = np.log(shares.mean(0))
    return np.exp((shares * (logs - together)).sum(1).mean())
