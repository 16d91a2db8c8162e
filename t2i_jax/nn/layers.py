"""Parts that models share: attention with an explicit cache, the MLP, the positions of a grid."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike


def normal_init(width: int, scale: float = 1.0) -> Callable:
    """Normal with deviation 0.02 at width 768 (BERT, GPT-2), and in proportion to 1 / sqrt(width) elsewhere.

    So attention scores start equally large at every width (Yang et al. 2022, "Tensor Programs V", table 3). With a
    plain 0.02, narrow models bind words to places late; `docs/recipe-digits.md` has the figures.
    """
    return nn.initializers.normal(scale * 0.02 * (768 / width) ** 0.5)


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, each Float[B, length, heads, head_dim]."""

    key: Array
    value: Array


def grid_position_features(height: int, width: int) -> Float[np.ndarray, "N F"]:
    """Positions of a grid, row by row: one-hot row and one-hot column."""
    rows, columns = np.divmod(np.arange(height * width), width)
    return np.concatenate([np.eye(height)[rows], np.eye(width)[columns]], 1)


def split_heads(x: Float[Array, "B L D"], heads: int) -> Float[Array, "B L heads head_dim"]:
    """Cut the width into heads."""
    return rearrange(x, "B L (heads head_dim) -> B L heads head_dim", heads=heads)


def attend(
    query: Float[Array, "B Q heads head_dim"],
    key: Float[Array, "B L heads head_dim"],
    value: Float[Array, "B L heads head_dim"],
    mask: Bool[Array, "#B 1 #Q L"],
    dropout: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "B Q D"]:
    """Scaled dot-product attention, heads joined again (Vaswani et al. 2017, section 3.2.1, equation 1).

    `mask` is True where a query may look; scores and softmax are float32 whatever the inputs are. A query
    that may look nowhere gets the mean of all values, never NaN. `dropout` is applied to the weights.
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores)).astype(value.dtype)
    return rearrange(jnp.einsum("bhqk,bkhd->bqhd", weights, value), "B Q heads head_dim -> B Q (heads head_dim)")


class SelfAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one fused product, in this order.

    Raises:
      ValueError: `heads` does not divide `width`.
    """

    width: int
    heads: int
    dropout: float = 0.0
    out_scale: float = 1.0
    dtype: str = "float32"

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads; change either")
        self.qkv = nn.Dense(3 * self.width, dtype=self.dtype, kernel_init=normal_init(self.width))
        self.out = nn.Dense(self.width, dtype=self.dtype, kernel_init=normal_init(self.width, self.out_scale))
        self.drop = nn.Dropout(self.dropout)

    def project(self, x):
        return [split_heads(part, self.heads) for part in jnp.split(self.qkv(x), 3, axis=-1)]

    def __call__(
        self, x: Float[Array, "B L D"], mask: Bool[Array, "#B 1 #L L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Attend over a whole sequence; `mask` is True where a position (axis 2) may look (axis 3)."""
        query, key, value = self.project(x)
        return self.out(attend(query, key, value, mask, lambda w: self.drop(w, deterministic=not train)))

    def decode_step(
        self,
        x: Float[Array, "B 1 D"],
        position: Int[ScalarLike, ""],
        cache: KeyValue,
        mask: Bool[Array, " L"] | None = None,
    ) -> tuple[Float[Array, "B 1 D"], KeyValue]:
        """Write one position into the cache and attend where `mask` is True: None is it and those before it."""
        query, key, value = self.project(x)
        cache = KeyValue(
            jax.lax.dynamic_update_slice_in_dim(cache.key, key, position, axis=1),
            jax.lax.dynamic_update_slice_in_dim(cache.value, value, position, axis=1),
        )
        if mask is None:
            mask = jnp.arange(cache.key.shape[1]) <= position
        return self.out(attend(query, cache.key, cache.value, mask[None, None, None])), cache


class CrossAttention(nn.Module):
    """Multi-head attention to a memory; keys and values come from one fused product, in this order.

    `project_memory` and `__call__` are apart so that sampling projects the memory once.

    Raises:
      ValueError: `heads` does not divide `width`.
    """

    width: int
    heads: int
    dropout: float = 0.0
    out_scale: float = 1.0
    dtype: str = "float32"

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads; change either")
        self.q = nn.Dense(self.width, dtype=self.dtype, kernel_init=normal_init(self.width))
        self.kv = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=normal_init(self.width))
        self.out = nn.Dense(self.width, dtype=self.dtype, kernel_init=normal_init(self.width, self.out_scale))
        self.drop = nn.Dropout(self.dropout)

    def project_memory(self, memory: Float[Array, "B S D"]) -> KeyValue:
        """Keys and values of the memory."""
        return KeyValue(*(split_heads(part, self.heads) for part in jnp.split(self.kv(memory), 2, axis=-1)))

    def __call__(
        self,
        x: Float[Array, "B L D"],
        memory: KeyValue,
        memory_mask: Bool[Array, "B S"],
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """Attend to the projected memory where `memory_mask` is True."""
        query = split_heads(self.q(x), self.heads)
        mask = memory_mask[:, None, None]
        return self.out(
            attend(query, memory.key, memory.value, mask, lambda w: self.drop(w, deterministic=not train))
        )


def read_null(
    memory: Float[Array, "B S D"],
    memory_mask: Bool[Array, "B S"],
    null: Bool[ArrayLike, " B"] | None,
    vector: Float[Array, "1 D"],
) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
    """A memory and its mask in which rows marked `null` hold one vector, at position 0, and nothing else.

    The null caption of classifier-free guidance (Ho & Salimans 2022, section 3.2). `null` None marks no row.
    """
    if null is None:
        return memory, memory_mask
    first = jnp.arange(memory.shape[1]) == 0
    memory = jnp.where(null[:, None, None], vector.astype(memory.dtype), memory)
    return memory, jnp.where(null[:, None], first, memory_mask)


class MLP(nn.Module):
    """Two dense layers with an activation between (Vaswani et al. 2017, section 3.3)."""

    hidden: int
    activation: Callable
    out_scale: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        width = x.shape[-1]
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=normal_init(width), name="up")(x)
        x = self.activation(x)
        return nn.Dense(width, dtype=self.dtype, kernel_init=normal_init(width, self.out_scale), name="down")(x)
