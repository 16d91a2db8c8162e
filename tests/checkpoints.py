"""Small checkpoints for tests: a state of each step, and the stream that gave it its batches."""

import grain
import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.state import State


def state_of(step):
    values = jnp.arange(6.0).reshape(2, 3) + step
    key = jax.random.key_data(jax.random.key(step))
    return State(
        jnp.int32(step), {"a": values}, {"mu": -values, "count": key}, {"book": values[0]}, {"a": values / 3}
    )


def stream(at=0):
    batches = iter(grain.MapDataset.range(100).seed(0).shuffle().repeat().batch(2).to_iter_dataset())
    for _ in range(at):
        next(batches)
    return batches


def names_of(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def save_two(folder):
    """A new run with checkpoints 2 and 4."""
    folder.mkdir()
    for step in (2, 4):
        Checkpoints(folder, 2).save(state_of(step), stream(step))


def assert_restored(run, step):
    state, batches = Checkpoints(run).restore(state_of(0), stream())
    jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
    np.testing.assert_array_equal(next(batches), next(stream(step)))
