"""Multi-head attention: of a sequence to itself or to a memory, with or without a cache.

Letters: B batch, Q queries, N keys, S positions of a memory, D width, head_dim = D / heads, R = B * heads rows,
those of one example side by side.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, ScalarLike

from t2i_jax.nn.blocks import in_blocks
from t2i_jax.nn.dense import Dense, normal_init
from t2i_jax.nn.products import einsum


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, each Float[R, N, head_dim].

    A product over one head reads memory in order, so that a decoding step does not transpose the whole cache; and
    with batch and heads in one axis XLA on CPU writes into it in place: with two it copies the cache where B is 1.
    """

    key: Array
    value: Array


def causal_mask(queries: int, keys: int, position: Int[ScalarLike, ""] = 0) -> Bool[Array, "1 1 Q N"]:
    """True where a key is not later than its query, the first of which is at `position`."""
    return (jnp.arange(keys) <= position + jnp.arange(queries)[:, None])[None, None]


@cache
def _has_flash() -> bool:
    """Whether cuDNN's fused attention runs here: on NVIDIA devices of compute capability 8.0 (Ampere) and above."""
    device = jax.devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    return cuda and float(device.compute_capability) >= 8


def _fits_flash(query: Float[Array, "R Q head_dim"], mask: Bool[Array, "#B 1 #Q N"] | None) -> bool:
    """Whether cuDNN takes such inputs: 16 bits, head sizes in eights, a mask that is causal or the same for all."""
    _, queries, size = query.shape
    simple = mask is None or mask.shape[2] == 1
    return query.dtype.itemsize == 2 and size % 8 == 0 and size <= 128 and queries > 1 and simple


def weigh(
    query: Float[Array, "R Q head_dim"],
    key: Float[Array, "R N head_dim"],
    mask: Bool[Array, "#B #Q N"],
    heads: int,
) -> Float[Array, "B heads Q N"]:
    """How much each query looks at each key, float32; over the keys these sum to 1. See `attend`."""
    scores = einsum("rqd,rkd->rqk", query, key, preferred_element_type=jnp.float32)
    scores = rearrange(scores, "(B heads) Q N -> B heads Q N", heads=heads) * query.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min))


def attend(
    query: Float[Array, "R Q head_dim"],
    memory: KeyValue,
    mask: Bool[Array, "#B 1 #Q N"] | None,
    heads: int,
    dropout: Callable | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "B Q D"]:
    """Scaled dot-product attention, heads joined again (Vaswani et al. 2017, section 3.2.1, equation 1).

    Scores and softmax are float32 whatever the inputs are. Where the scores of all queries would be large, those of
    a block of queries are held at a time (Rabe & Staats 2021, "Self-attention Does Not Need O(n^2) Memory"). On
    NVIDIA GPUs inputs of 16 bits go through cuDNN's fused kernel (Dao 2023, "FlashAttention-2") where it knows such
    a mask and no weights are dropped.

    Args:
      query: of the sequence.
      memory: keys and values.
      mask: True where a query may look, which if it is the same for all of them must be a first part of the keys;
        None where Q = N and each looks at itself and those before it. A query that may look nowhere gets the mean
        of all values; by the fused kernel, the first value.
      heads: R / B.
      dropout: `(weights, rng=key) -> weights`.
      key: what it draws from; without one there is no dropout.
    """
    if key is None and _has_flash() and _fits_flash(query, mask):
        query, keys, values = (rearrange(x, "(B heads) N d -> B N heads d", heads=heads) for x in (query, *memory))
        lengths = None
        if mask is not None:
            lengths = jnp.broadcast_to(jnp.maximum(mask.sum((1, 2, 3), dtype="int32"), 1), len(query))
        out = jax.nn.dot_product_attention(
            query, keys, values, is_causal=mask is None, key_value_seq_lengths=lengths, implementation="cudnn"
        )
        return rearrange(out, "B Q heads d -> B Q (heads d)")
    if mask is None:
        mask = causal_mask(query.shape[1], memory.key.shape[1])

    def read(query, mask, key):
        weights = weigh(query, memory.key, mask, heads)
        weights = (weights if key is None else dropout(weights, rng=key)).astype(memory.value.dtype)
        out = einsum("rqk,rkd->rqd", rearrange(weights, "B heads Q N -> (B heads) Q N"), memory.value)
        return rearrange(out, "(B heads) Q d -> B Q (heads d)", heads=heads)

    rows, keys, _ = memory.key.shape
    return in_blocks(read, (query, mask[:, 0]), rows * keys, key)


class Attention(nn.Module):
    """Multi-head attention, to the sequence itself or to a memory.

    `project` and `__call__` are apart so that sampling projects what does not change only once.

    Attributes:
      width: D.
      heads: a divisor of D.
      dropout: rate on the weights; the caller sets 0 outside of training.
      out_scale: of the output kernel's initial standard deviation.
      dtype: of the computation.

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

        def dense(scale=1.0):
            return Dense(self.width, normal_init(self.width, scale), self.dtype)

        # Three kernels and not one: Muon makes each orthogonal by itself.
        self.query, self.key, self.value, self.out = dense(), dense(), dense(), dense(self.out_scale)
        self.drop = nn.Dropout(self.dropout, deterministic=False)

    def split(self, x: Float[Array, "B N D"]) -> Float[Array, "R N head_dim"]:
        return rearrange(x, "B N (heads d) -> (B heads) N d", heads=self.heads)

    def project(self, memory: Float[Array, "B N _"]) -> KeyValue:
        """Keys and values of what is attended to, of any width."""
        return KeyValue(self.split(self.key(memory)), self.split(self.value(memory)))

    def __call__(
        self, x: Float[Array, "B Q D"], memory: KeyValue, mask: Bool[Array, "#B 1 #Q N"] | None
    ) -> Float[Array, "B Q D"]:
        """Attend to projected keys and values where `mask` is True; see `attend`."""
        query = self.split(self.query(x))
        key = self.drop.make_rng("dropout") if self.dropout else None
        return self.out(attend(query, memory, mask, self.heads, self.drop, key))


def write(cache: KeyValue, new: KeyValue, position: Int[ScalarLike, ""]) -> KeyValue:
    """The cache with the keys and values of new positions from `position` on written into it."""
    pairs = zip(cache, new, strict=True)
    return KeyValue(*(jax.lax.dynamic_update_slice_in_dim(old, x, position, axis=1) for old, x in pairs))


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
