"""What the hosts of a run do together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax.errors import UserError, one_line


def start() -> None:
    """Join the processes of a run; before anything else of jax.

    On TPU pods and under Slurm jax finds out by itself; elsewhere it reads the coordinator's address from
    JAX_COORDINATOR_ADDRESS, and this reads JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: nothing says which processes there are, or they cannot be joined.
    """
    given = {name: os.environ.get(f"JAX_{name.upper()}") for name in ("num_processes", "process_id")}
    try:
        jax.distributed.initialize(**{name: int(value) for name, value in given.items() if value})
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--multihost: {one_line(error)}; set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def alone() -> bool:
    """Whether there is no other host."""
    return jax.process_count() == 1


def largest(number: int) -> int:
    """The largest of the hosts' numbers; all of them must ask."""
    return number if alone() else int(multihost_utils.process_allgather(np.array(number)).max())


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


def on_first(do: Callable[[], Any]) -> Any:
    """What `do` returns on the first host, and None on the others; where it fails there, it raises on all.

    Raises:
      UserError: see `agreed`.
    """
    with agreed():
        return do() if is_first() else None
