"""Rows in batches of few shapes, split over the devices on which the parameters lie."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# Rows of a batch: each size is a program to compile, and each row too many is computed in vain. One image alone is
# what people wait for most often.
SIZES = (1, 8, 32, 64)
BATCH = SIZES[-1]  # most images sampled or decoded at a time
ROW_AXES = ("data", "fsdp")  # of a mesh: those over which rows are split; the others share a row


@partial(jax.jit, static_argnames=("model", "method"))
def apply(model, variables, *arrays, method: str):
    """A method of a model, compiled once, however often its run is opened during training."""
    return model.apply(variables, *arrays, method=method)


def in_batches(apply: Callable, *arrays: np.ndarray, like=None) -> np.ndarray:
    """A compiled function of rows, `[B, ...] -> [B, ...]`, applied to any number of them, none included.

    Batches have at most `BATCH` rows, the last one repeated up to one of `SIZES` (and to what the devices divide).

    Args:
      apply: of as many arrays as there are.
      arrays: each [B, ...].
      like: parameters that `apply` reads; rows are split over their devices (see `split_rows`).
    """
    if not len(arrays[0]):
        one = (jnp.zeros((1, *rows.shape[1:]), rows.dtype) for rows in arrays)
        shape = jax.eval_shape(apply, *one)
        return np.zeros((0, *shape.shape[1:]), shape.dtype)
    results = []
    for start in range(0, len(arrays[0]), BATCH):
        parts = [rows[start : start + BATCH] for rows in arrays]
        results.append(fetch(apply(*split_rows(fill(parts), like)))[: len(parts[0])])
    return np.concatenate(results)


def fill(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays of 1 to `BATCH` rows, the last one repeated up to one of `SIZES`."""
    return _repeat_last(arrays, next(size for size in SIZES if size >= len(arrays[0])))


def distinct(arrays: tuple[np.ndarray, ...], like) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """Rows that differ in the first of some arrays, each once, and which of them every row is.

    Args:
      arrays: of 1 to `BATCH` rows.
      like: parameters of what reads them.

    Returns:
      Arrays [P, ...] of one of `SIZES`, and indices [B]. Where P would not be smaller than what `fill` makes of all
      rows, and over several devices, each of which reads those of its own images: the arrays as they are, and None.
    """
    _, first, rows = np.unique(arrays[0], axis=0, return_index=True, return_inverse=True)
    found = tuple(fill([x[first] for x in arrays]))
    if mesh_of(like) is not None or len(found[0]) == len(fill(arrays)[0]):
        return arrays, None
    return found, rows.reshape(-1).astype(np.int32)


def split_rows(tree, like):
    """Arrays [B, ...] put where parameters lie, split along B over the devices of their mesh.

    Args:
      tree: of numpy arrays. Where the devices do not divide B, the last row is repeated until they do.
      like: tree of parameters. On a single device nothing is moved; sharded or replicated over a mesh, rows are
        split over its `ROW_AXES`, so that no device does another's work.
    """
    sharding = row_sharding(like)
    if sharding is None:
        return tree
    devices = int(np.prod([sharding.mesh.shape.get(axis, 1) for axis in ROW_AXES]))
    leaves, structure = jax.tree.flatten(tree)
    leaves = _repeat_last(leaves, -(-len(leaves[0]) // devices) * devices)
    # Not device_put: of several processes, each puts its own rows.
    put = [jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__) for rows in leaves]
    return jax.tree.unflatten(structure, put)


def row_sharding(like) -> NamedSharding | None:
    """Along the first axis over the devices on which the parameters lie; None for a single device."""
    mesh = mesh_of(like)
    axes = tuple(axis for axis in ROW_AXES if mesh is not None and axis in mesh.shape)
    return NamedSharding(mesh, PartitionSpec(axes)) if axes else None


def replicate(tree, like):
    """A tree of arrays, whole on each device on which the parameters lie; as it is for a single device."""
    mesh = mesh_of(like)
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def mesh_of(like) -> jax.sharding.Mesh | None:
    """The mesh of more than one device on which parameters lie, if any."""
    for leaf in jax.tree.leaves(like):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def fetch(array) -> np.ndarray:
    """All rows on the host, those of other processes too."""
    if getattr(array, "is_fully_addressable", True):
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)


def _repeat_last(arrays, size: int) -> list:
    return [np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)]) for rows in arrays]
