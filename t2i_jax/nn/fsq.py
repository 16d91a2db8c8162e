"""Finite scalar quantization."""

import math
from itertools import combinations_with_replacement

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.nn.estimators import Quantized, straight_through


def levels_of(codebook_size: int) -> tuple[int, ...]:
    """K as a product of as few factors as possible, each 4 to 8, the greater ones first.

    Raises:
      ValueError: there is no such product.
    """
    for count in range(1, int(codebook_size).bit_length() // 2 + 1):  # 4 ** count is at most K
        for levels in combinations_with_replacement(range(8, 3, -1), count):
            if math.prod(levels) == codebook_size:
                return levels
    raise ValueError(f"codebook_size {codebook_size} is no product of levels from 4 to 8; 240, 512 and 2048 are")


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3): every channel is rounded to one of a few levels.

    Attributes:
      codebook_size: K, the product of the levels (see `levels_of`).
      width: D.
    """

    codebook_size: int
    width: int

    def setup(self):
        self.levels = levels_of(self.codebook_size)
        self.down = nn.Dense(len(self.levels))
        self.up = nn.Dense(self.width)

    def to_code_space(self, features: Float[Array, "B N D"]) -> Float[Array, "B N d"]:
        """Features bounded to where they round to whole numbers, -L // 2 up to (L - 1) // 2 of a channel's L."""
        levels = np.array(self.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        return jnp.tanh(self.down(features.astype(jnp.float32)) + np.arctanh(offset / half)) * half - offset

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize; training is no different."""
        del train
        x = self.to_code_space(features)
        rounded = jnp.round(x)
        ids = jnp.sum((rounded + np.array(self.levels) // 2) * self._basis(), -1).astype(jnp.int32)
        codes = self._from_code_space(straight_through(x, rounded))
        return Quantized(codes.astype(features.dtype), ids, jnp.zeros(len(ids)))

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features; the first channel turns fastest."""
        levels = np.array(self.levels)
        digits = np.arange(self.codebook_size)[:, None] // self._basis() % levels
        return self._from_code_space(jnp.array(digits - levels // 2, jnp.float32))

    def _basis(self):
        return np.cumprod([1, *self.levels[:-1]])

    def _from_code_space(self, rounded):
        return self.up(rounded / (np.array(self.levels) // 2))
