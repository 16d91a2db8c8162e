"""A bidirectional transformer over image tokens, some masked (Chang et al. 2022, "MaskGIT", section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.nn.attention import read_null
from t2i_jax.nn.dense import Head, normal_init
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.stack import Stack


class Model(nn.Module):
    """Captions and partly masked image tokens in, logits of all image tokens out.

    Attributes:
      codebook_size: K; the mask token is K.
      num_tokens: N.
      text_vocab_size: V.
      text_len: the longest text, in tokens.
      width, layers, heads: of the transformer, which reads embedded word pieces by cross attention.
      dtype: of the computation.
    """

    codebook_size: int
    num_tokens: int
    text_vocab_size: int
    text_len: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    dtype: str = "float32"

    def setup(self):
        def embed(rows):
            return nn.Embed(rows, self.width, embedding_init=normal_init(self.width), dtype=self.dtype)

        self.word_embed, self.text_position_embed = embed(self.text_vocab_size), embed(self.text_len)
        self.token_embed, self.position_embed = embed(self.codebook_size + 1), embed(self.num_tokens)
        self.null_caption = self.param("null_caption", normal_init(self.width), (1, self.width))
        sizes = self.layers, self.width, self.heads, 4 * self.width
        self.blocks = Stack(*sizes, "gelu", cross=True, dtype=self.dtype)
        self.ln_out = layer_norm(1e-5, self.dtype)
        self.head = Head(self.codebook_size, dtype=self.dtype)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B N"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N K"]:
        """float32 logits of every token where none of them is shown: what evaluations and rankings read."""
        return self.reveal(text_ids, text_mask, jnp.full_like(ids, self.codebook_size), null, train=train)

    def reveal(self, text_ids, text_mask, ids, null=None, *, train: bool = False):
        """Logits [B, N, K] of every token, from the caption and `ids` in [0, K], of which K is masked."""
        return self.predict(ids, *self.encode(text_ids, text_mask, null), train=train)

    def encode(self, text_ids, text_mask, null=None):
        """What cross attention reads: [B, S, D], and where it may."""
        memory = self.word_embed(text_ids) + self.text_position_embed(jnp.arange(text_ids.shape[1]))
        return read_null(memory, jnp.asarray(text_mask), null, self.null_caption)

    def predict(self, ids, memory, memory_mask, *, train: bool = False):
        """Logits [B, N, K] of partly masked ids, over what `encode` returned."""
        x = self.token_embed(ids) + self.position_embed(jnp.arange(ids.shape[1]))
        everywhere = jnp.ones((1, 1, 1, ids.shape[1]), bool)
        return self.head(self.ln_out(self.blocks(x, everywhere, memory, memory_mask, train=train)[0]))
