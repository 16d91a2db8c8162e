"""What the hosts of a run do together."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax.errors import UserError


def is_first() -> bool:
    """Whether this is the host that writes what is written once."""
    return jax.process_index() == 0


@contextmanager
def agreed() -> Iterator[None]:
    """Leave a block on all hosts or on none: where it fails on one, it raises on the others too.

    Every host must come to it, and nothing within may wait for another host.

    Raises:
      UserError: another host failed.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    failed = np.flatnonzero(multihost_utils.process_allgather(np.array(error is not None)))
    if error:
        raise error
    if failed.size:
        raise UserError(f"host {failed[0]} of {jax.process_count()} failed; it says why")
