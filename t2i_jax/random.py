"""Random streams by name, and the seeds they begin with."""

import zlib

from t2i_jax.errors import UserError

MAX_SEED = 2**32 - 1  # a jax random key reads 32 bits


def check_seed(seed: int, name: str = "seed") -> None:
    """Whether a random key can be made of a seed.

    Args:
      seed: any whole number.
      name: what the error calls it.

    Raises:
      UserError: it is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"{name} {seed} is out of range; give 0 to {MAX_SEED}")


def stream(seed: int, name: str, step=None):
    """A random key for each name and step: a new stream shifts no other.

    Args:
      seed: of the run, 0 to `MAX_SEED`.
      name: of the stream, such as "init", "dropout" or "sample".
      step: int, traced or not; None for a stream that does not change over steps.

    Raises:
      UserError: the seed is out of range.
    """
    import jax  # here, so that a command line can check seeds before it loads jax

    check_seed(seed)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)
