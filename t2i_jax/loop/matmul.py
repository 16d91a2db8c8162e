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
PRODUCTS = 16  # one after another in a program, so that starting it does not count
TURNS = 5


def settle(config, folder: Path | None = None) -> None:
    """Put in place of "auto" what a run has begun with, or else what is fast on all hosts.

    Args:
      config: its `matmul` is set.
      folder: of the run; None where nothing is to be kept.

    Raises:
      UserError: an unknown kind.
    """
    if config.matmul not in KINDS:
        raise UserError(f"config.matmul {config.matmul!r} is unknown; choose {', '.join(KINDS)}")
    if config.matmul != "auto":
        return
    if folder and runs.has_begun(folder):
        with suppress(files.CorruptError):  # said where configs are compared
            config.matmul = runs.unpack_config(folder / runs.CONFIG).get("matmul", "float32")
            return
    ratio = gain()
    config.matmul = "float32" if hosts.largest(int(ratio < ENOUGH)) else "bfloat16"
    print(
        f"config.matmul {config.matmul}: products in bfloat16 are {ratio:.2g} times as fast as in float32 here",
        file=sys.stderr,
    )


def gain() -> float:
    """How many times as fast products of factors in bfloat16 are, summed in float32, as those in float32."""
    x = jnp.eye(SIDE)

    @jax.jit
    def products(x):
        def product(_, y):
            return jnp.matmul(y.astype(x.dtype), x, preferred_element_type=jnp.float32)

        return jax.lax.fori_loop(0, PRODUCTS, product, jnp.eye(SIDE))

    factors = [x, x.astype(jnp.bfloat16)]
    for x in factors:
        jax.block_until_ready(products(x))
    turns = [[_seconds(products, x) for x in factors] for _ in range(TURNS)]
    return statistics.median(whole / rounded for whole, rounded in turns)


def _seconds(function: Callable, x) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(x))
    return time.perf_counter() - start
