"""Random streams by name."""

import zlib

import jax


def stream(seed: int, name: str, step=None) -> jax.Array:
    """A random key for each name and step: a new stream shifts no other.

    Args:
      seed: of the run.
      name: of the stream, such as "init", "dropout" or "sample".
      step: int, traced or not; None for a stream that does not change over steps.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)
