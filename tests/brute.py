"""What tests of logits and of draws share: settings, rows, keys, and what filters keep, by brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

K = 12
UNFILTERED = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
PLAIN = UNFILTERED | {"unguided_tokens": 0}


def order_of(row):
    """Ids from the likeliest to the least; of equals the lower first."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def brute_top_k(row, k):
    return set(order_of(row)[: k or len(row)])


def brute_top_p(row, p):
    kept, total = set(), 0.0
    weights = np.exp(np.float64(row) - max(row))
    for i in order_of(row):
        kept.add(i)
        total += weights[i] / weights.sum()
        if total >= p:
            break
    return kept


def brute_min_p(row, p):
    weights = np.exp(np.float64(row) - max(row))
    return {i for i, weight in enumerate(weights) if weight >= p}


def rows():
    """Random logits, the second half rounded so that many are equal, and one row of equals only."""
    values = np.random.default_rng(0).normal(size=(60, K)).astype(np.float32) * 2
    values[30:] = np.round(values[30:])
    values[-1] = 0.25
    return values


def keys_of(count, seed=0):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(count))
