"""GPT-2, the causal decoder (Radford et al. 2019, section 2.3), with cross attention in every block."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.nn.layers import MLP, CrossAttention, KeyValue, SelfAttention, normal_init


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Gelu by the tanh approximation (Hendrycks & Gimpel 2016, section 2)."""
    return jax.nn.gelu(x, approximate=True)


def layer_norm(dtype: str) -> nn.LayerNorm:
    # The two-pass variance: the fast one loses digits where the mean is large.
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False)


class Cache(NamedTuple):
    """What decoding remembers. Shapes are static, and every leaf's first axis is the batch.

    Attributes:
      self_attention: one KeyValue a layer, [B, N, heads, head_dim], zero where not yet written.
      cross_attention: one KeyValue a layer, [B, S, heads, head_dim], computed once.
      memory_mask: Bool[B, S], True where the memory may be read.
    """

    self_attention: tuple[KeyValue, ...]
    cross_attention: tuple[KeyValue, ...]
    memory_mask: Array


class Block(nn.Module):
    """One pre-norm block: self-attention, cross attention, MLP."""

    width: int
    heads: int
    mlp_width: int
    dropout: float
    out_scale: float
    dtype: str

    def setup(self):
        self.ln_1 = layer_norm(self.dtype)
        self.attn = SelfAttention(self.width, self.heads, self.dropout, self.out_scale, self.dtype)
        self.ln_cross_attn = layer_norm(self.dtype)
        self.cross_attn = CrossAttention(self.width, self.heads, self.dropout, self.out_scale, self.dtype)
        self.ln_2 = layer_norm(self.dtype)
        self.mlp = MLP(self.mlp_width, gelu, self.out_scale, self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def read_and_think(self, x, memory, memory_mask, train=False):
        y = self.cross_attn(self.ln_cross_attn(x), memory, memory_mask, train=train)
        x = x + self.drop(y, deterministic=not train)
        return x + self.drop(self.mlp(self.ln_2(x)), deterministic=not train)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Bool[Array, "1 1 L L"],
        memory: Float[Array, "B S D"],
        memory_mask: Bool[Array, "B S"],
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        x = x + self.drop(self.attn(self.ln_1(x), mask, train=train), deterministic=not train)
        return self.read_and_think(x, self.cross_attn.project_memory(memory), memory_mask, train)

    def decode_step(
        self,
        x: Float[Array, "B 1 D"],
        position: Int[ScalarLike, ""],
        cache: KeyValue,
        memory: KeyValue,
        memory_mask: Bool[Array, "B S"],
    ) -> tuple[Float[Array, "B 1 D"], KeyValue]:
        y, cache = self.attn.decode_step(self.ln_1(x), position, cache)
        return self.read_and_think(x + y, memory, memory_mask), cache


class GPT2(nn.Module):
    """GPT-2 without its head; the defaults are the smallest release. Released weights fit it.

    Kernels start normal (`normal_init`), those that write into the residual stream with 1 / sqrt(2 layers) of its
    deviation (section 2.3: "scale the weights of residual layers at initialization").

    Attributes:
      vocab_size: number of input ids.
      width: D, of the memory too.
      layers, heads, mlp_width: depth, attention heads (a divisor of the width), width inside the MLP.
      positions: the longest sequence it can write.
      dropout: rate on embeddings, attention weights and every branch of a block, while training.
      dtype: of the computation; parameters are float32.
      remat: compute activations within a block again in the backward pass instead of keeping them.
    """

    vocab_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    positions: int = 1024
    dropout: float = 0.1
    dtype: str = "float32"
    remat: bool = False

    def setup(self):
        def embed(rows):
            return nn.Embed(rows, self.width, embedding_init=normal_init(self.width), dtype=self.dtype)

        self.token_embed = embed(self.vocab_size)
        self.position_embed = embed(self.positions)
        self.drop = nn.Dropout(self.dropout)
        out_scale = (2 * self.layers) ** -0.5
        self.blocks = [
            Block(self.width, self.heads, self.mlp_width, self.dropout, out_scale, self.dtype)
            for _ in range(self.layers)
        ]
        self.ln_f = layer_norm(self.dtype)

    def __call__(
        self,
        ids: Int[ArrayLike, "B L"],
        memory: Float[ArrayLike, "B S D"],
        memory_mask: Bool[ArrayLike, "B S"],
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """States of a whole sequence; position i sees ids 0..i and the memory.

        Args:
          ids: in [0, vocab_size).
          memory: what cross attention reads.
          memory_mask: True where it may be read.
          train: apply dropout (draws from the random stream "dropout").

        Raises:
          ValueError: the sequence is longer than `positions`.
        """
        memory, memory_mask = jnp.asarray(memory), jnp.asarray(memory_mask)
        length = ids.shape[1]
        self.check_length(length)
        x = self.token_embed(ids) + self.position_embed(jnp.arange(length))
        x = self.drop(x, deterministic=not train)
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None]

        def run(block, x):
            return block(x, mask, memory, memory_mask, train=train)

        for block in self.blocks:
            x = (nn.remat(run) if self.remat else run)(block, x)
        return self.ln_f(x)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"], length: int) -> Cache:
        """An empty cache for `length` positions over this memory.

        Raises:
          ValueError: `length` is above `positions`.
        """
        self.check_length(length)
        shape = (memory.shape[0], length, self.heads, self.width // self.heads)
        # One array for each leaf: a donated cache must not hold the same buffer twice.
        return Cache(
            tuple(KeyValue(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in self.blocks),
            tuple(block.cross_attn.project_memory(memory) for block in self.blocks),
            memory_mask,
        )

    def decode_step(
        self, ids: Int[Array, " B"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B D"], Cache]:
        """States of one position, given that the cache holds all before it.

        `position` counts from 0 and must be below the cache's length (a traced one cannot be checked).
        """
        x = (self.token_embed(ids) + self.position_embed(position))[:, None]
        written = []
        for block, own, memory in zip(self.blocks, cache.self_attention, cache.cross_attention, strict=True):
            x, own = block.decode_step(x, position, own, memory, cache.memory_mask)
            written.append(own)
        return self.ln_f(x)[:, 0], cache._replace(self_attention=tuple(written))

    def check_length(self, length):
        if length > self.positions:
            raise ValueError(f"sequence has {length} tokens; the decoder writes {self.positions} (positions)")
