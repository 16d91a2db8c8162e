"""`config.matmul`: the type that factors of a model's products are rounded to while it is trained."""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp

from t2i_jax import files, hosts, runs
from t2i_jax.errors import UserError

KINDS = ("float32", "bfloat16", "auto")
ENOUGH = 1.5  # times as fast: what "auto" wants of bfloat16
SIDE = 1024  # of the matrices that are tried
TURNS = 15


def settle(config, folder: Path) -> None:
    """Put in place of "auto" what a run has begun with, or else what is fast here; the same on all hosts.

    Raises:
      UserError: an unknown kind.
    """
    if config.matmul not in KINDS:
        raise UserError(f"config.matmul {config.matmul!r} is unknown; choose {', '.join(KINDS)}")
    if config.matmul != "auto":
        return
    if runs.has_begun(folder):
        with suppress(files.CorruptError):  # said where configs are compared
            config.matmul = runs.unpack_config(folder / runs.CONFIG).get("matmul", "float32")
            return
    ratio = gain()
    config.matmul = "bfloat16" if hosts.largest(int(ratio >= ENOUGH)) else "float32"
    print(
        f"config.matmul {config.matmul}: products in bfloat16 are {ratio:.2g} times as fast as in float32 here",
        file=sys.stderr,
    )


def gain() -> float:
    """How many times as fast products of factors in bfloat16 are, summed in float32, as those in float32."""
    x = jnp.ones((SIDE, SIDE))

    @jax.jit
    def product(x):
        return jnp.matmul(x, x, preferred_element_type=jnp.float32)

    factors = [x, x.astype(jnp.bfloat16)]
    for x in factors:
        jax.block_until_ready(product(x))
    turns = [[_seconds(product, x) for x in factors] for _ in range(TURNS)]
    return statistics.median(whole / rounded for whole, rounded in turns)


def _seconds(function: Callable, x) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(x))
    return time.perf_counter() - start
