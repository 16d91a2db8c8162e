"""Rows in batches of few shapes, so that few programs are compiled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

BATCH = 64  # most pictures drawn or decoded at a time


def padded(rows: np.ndarray):
    """Batches of at most `BATCH` rows, each repeated up to a power of two: few shapes, few compilations.

    Yields:
      A batch and how many of its leading rows count.
    """
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        size = 1 << (len(part) - 1).bit_length()
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]), len(part)


def in_batches(apply: Callable, rows: np.ndarray) -> np.ndarray:
    """A compiled function of rows, `[B, ...] -> [B, ...]`, applied to any number of them, none included."""
    if not len(rows):
        shape = jax.eval_shape(apply, jnp.zeros((1, *rows.shape[1:]), rows.dtype))
        return np.zeros((0, *shape.shape[1:]), shape.dtype)
    return np.concatenate([np.asarray(apply(part))[:count] for part, count in padded(rows)])


def place_like(params, batch):
    """A batch split along its leading axis over the devices that hold `params`; as it is on a single device.

    Without it, a compiled function of replicated params would compute the whole batch on every device.

    Args:
      params: tree of arrays.
      batch: tree of arrays [B, ...]; where the devices do not divide B, it is returned as it is.
    """
    sharding = jax.tree.leaves(params)[0].sharding
    rows = len(jax.tree.leaves(batch)[0])
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1 or rows % sharding.mesh.size:
        return batch
    return jax.device_put(batch, NamedSharding(sharding.mesh, PartitionSpec(sharding.mesh.axis_names)))
