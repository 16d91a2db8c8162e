"""What would hold too much at once, computed in blocks of positions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Key, PyTree

LARGE = 2**27  # bytes that may be held at once
ON_CPU = 2**25  # there; less to keep for the backward pass makes a step of 1,024 tokens faster as well


def in_blocks(
    function: Callable, arrays: tuple[Array, ...], held: int, key: Key[Array, ""] | None = None
) -> PyTree[Array]:
    """`function(*arrays, key)`, in blocks of positions one after another where it would hold much at once.

    A block is computed again in the backward pass, and nothing of it is kept for that (Chen et al. 2016, "Training
    Deep Nets with Sublinear Memory Cost", section 3). Blocks are of positions, for devices share the examples.

    Args:
      function: of arrays [_, n, ...] and a key, to a tree of arrays [_, n, ...], each position by itself.
      arrays: [_, N, ...], or [_, 1, ...] where all positions have the same.
      held: numbers of float32 that `function` holds for each position. N is halved until a block holds at most
        `LARGE` bytes, on CPUs `ON_CPU`.
      key: what `function` draws from, a key of its own for each block; None draws nothing.
    """
    length = size = arrays[0].shape[1]
    most = min(LARGE, ON_CPU) if jax.default_backend() == "cpu" else LARGE
    while size > 1 and 4 * held * size > most:
        size = -(-size // 2)
    if size == length:
        return function(*arrays, key)
    blocks = -(-length // size)

    def cut(x):
        x = jnp.broadcast_to(x, (len(x), length, *x.shape[2:]))
        x = jnp.pad(x, [(0, blocks * size - length) if axis == 1 else (0, 0) for axis in range(x.ndim)])
        return rearrange(x, "b (blocks n) ... -> blocks b n ...", n=size)

    function = jax.checkpoint(function, prevent_cse=False)  # a loop keeps XLA from undoing it
    inputs = *map(cut, arrays), None if key is None else jax.random.split(key, blocks)
    found = jax.lax.map(lambda block: function(*block), inputs)
    return jax.tree.map(lambda x: rearrange(x, "blocks b n ... -> b (blocks n) ...")[:, :length], found)
