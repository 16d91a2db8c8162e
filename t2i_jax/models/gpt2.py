"""GPT-2, the causal decoder (Radford et al. 2019, section 2.3), with cross attention in every block."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.models.parts import embedding, stack
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.positions import check_length
from t2i_jax.nn.stack import FEW, Cache

EPSILON = 1e-5


class GPT2(nn.Module):
    """GPT-2 without its head; the defaults are the smallest release. Released weights fit it.

    Kernels start normal (`normal_init`), those that write into the residual stream with 1 / sqrt(2 layers) of its
    standard deviation (section 2.3: "scale the weights of residual layers at initialization").

    Attributes:
      vocab_size: number of input ids.
      width: D, of the memory too.
      layers, heads, mlp_width: depth, attention heads (a divisor of the width), width inside the MLP.
      positions: the longest sequence it can write.
      dropout: rate on embeddings and every branch of a block, while training.
      dtype: of the computation; parameters are float32.
      attention_dropout, remat, unroll: see `Stack`.
    """

    vocab_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    positions: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = FEW

    def setup(self):
        self.token_embed = embedding(self, self.vocab_size)
        self.position_embed = embedding(self, self.positions)
        self.drop = nn.Dropout(self.dropout)
        scale = (2 * self.layers) ** -0.5
        self.decoder = stack(self, self.layers, "gelu_tanh", epsilon=EPSILON, cross=True, out_scale=scale)
        self.ln_f = layer_norm(EPSILON, self.dtype)

    def __call__(
        self,
        ids: Int[ArrayLike, "B Q"],
        memory: Float[ArrayLike, "B S D"] | None = None,
        memory_mask: Bool[ArrayLike, "B S"] | None = None,
        cache: Cache | None = None,
        position: Int[ScalarLike, ""] = 0,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B Q D"], Cache | None]:
        """States of a whole sequence, or with a cache of the positions from `position` on.

        Each position sees ids up to its own, and the memory.

        Args:
          ids: in [0, vocab_size).
          memory: what cross attention reads; with a cache, its own.
          memory_mask: True where it may be read, a first part of it.
          cache: from `init_cache`, with all earlier positions written.
          position: of the first id; `position + Q` must not exceed the cache's length (unchecked where traced).
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          States, and the cache with these positions written (None without one).

        Raises:
          ValueError: the sequence is longer than `positions`.
        """
        self.check_length(ids.shape[1])
        if cache is None:
            memory, memory_mask = jnp.asarray(memory), jnp.asarray(memory_mask)
        x = self.token_embed(ids) + self.position_embed(position + jnp.arange(ids.shape[1]))
        x = self.drop(x.astype(self.dtype), deterministic=not train)
        x, cache = self.decoder(x, None, memory, memory_mask, cache, position, train=train)
        return self.ln_f(x), cache

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"], length: int) -> Cache:
        """An empty cache for `length` positions over this memory.

        Raises:
          ValueError: `length` is above `positions`.
        """
        self.check_length(length)
        return self.decoder.init_cache(len(memory), length, memory, memory_mask)

    def check_length(self, length):
        check_length("sequence", length, "the decoder writes", self.positions, "positions")
