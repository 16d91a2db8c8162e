"""The original Transformer (Vaswani et al. 2017, section 3): captions -> image tokens, from scratch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.models.parts import stack
from t2i_jax.models.translator import shift_right
from t2i_jax.nn.attention import read_null
from t2i_jax.nn.dense import normal_init
from t2i_jax.nn.positions import check_length, sinusoids
from t2i_jax.nn.products import float32_product
from t2i_jax.nn.stack import FEW, Cache


class Model(nn.Module):
    """Captions in, logits of image tokens out; the interface is that of `translator.Model`.

    Post-norm layers with ReLU, sinusoidal positions, and one matrix for the decoder's embeddings and its logits
    (section 3.4: embeddings times sqrt(D)); the encoder's vocabulary is another, so its table is its own. The
    decoder reads K + 1 ids (BOS = K) and writes K logits. A row marked `null` reads one learned vector instead of
    its caption. The defaults are the paper's base model.

    Attributes:
      codebook_size: K.
      num_tokens: N, image tokens in a picture.
      text_vocab_size: V.
      text_len: the longest text, in tokens.
      width: D, even.
      heads: a divisor of D.
      mlp_width: width inside the MLPs.
      encoder_layers, decoder_layers: depths.
      dropout: rate on embeddings and every part of a layer, while training.
      dtype: of the computation; parameters are float32, and so are the logits.
      attention_dropout, remat, unroll: see `Stack`.
    """

    codebook_size: int
    num_tokens: int
    text_vocab_size: int
    text_len: int
    width: int = 512
    heads: int = 8
    mlp_width: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = FEW

    has_stack = True
    text_tables = (("text_embed/embedding", 0),)
    image_tables = ("token_embed/embedding",)

    def setup(self):
        def embed(rows):
            init = nn.initializers.normal(self.width**-0.5)
            return nn.Embed(rows, self.width, embedding_init=init)

        self.text_embed, self.token_embed = embed(self.text_vocab_size), embed(self.codebook_size + 1)
        self.encoder = stack(self, self.encoder_layers, "relu", norm="post")
        self.decoder = stack(self, self.decoder_layers, "relu", norm="post", cross=True)
        self.null_caption = self.param("null_caption", normal_init(self.width), (1, self.width))
        self.drop = nn.Dropout(self.dropout)

    def embed(self, table, ids, positions):
        return (table(ids) * self.width**0.5 + positions).astype(self.dtype)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L K"]:
        """Logits of every position under teacher forcing; see `translator.Model`.

        Raises:
          ValueError: a text longer than `text_len`, or more than `num_tokens` image tokens.
        """
        return self.logits(self.states(text_ids, text_mask, ids, null, train=train))

    def states(self, text_ids, text_mask, ids, null=None, *, train=False) -> Float[Array, "B L D"]:
        """What `logits` reads at every position; the arguments are those of a call."""
        memory, memory_mask = self.encode(text_ids, text_mask, null, train=train)
        length = ids.shape[1]
        check_length("sequence", length, "the decoder writes", self.num_tokens, "num_tokens")
        before = shift_right(ids, self.codebook_size)
        x = self.embed(self.token_embed, before, jnp.asarray(sinusoids(length, self.width)))
        x = self.drop(x, deterministic=not train)
        return self.decoder(x, None, memory, memory_mask, train=train)[0]

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        """float32 logits of each position by itself."""
        return float32_product(states, self.token_embed.embedding[: self.codebook_size].T, self.dtype)

    def encode(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """What the decoder reads, and where; in a null row the learned vector at position 0 and nothing else."""
        length, text_mask = text_ids.shape[1], jnp.asarray(text_mask)
        check_length("text", length, "the encoder reads", self.text_len, "text_len")
        x = self.embed(self.text_embed, text_ids, jnp.asarray(sinusoids(length, self.width)))
        x = self.drop(x, deterministic=not train)
        x, _ = self.encoder(x, text_mask[:, None, None], train=train)
        return read_null(x, text_mask, null, self.null_caption)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache for `num_tokens` positions over the memory that `encode` returned."""
        return self.decoder.init_cache(len(memory), self.num_tokens, memory, memory_mask)

    def decode_step(
        self, ids: Int[Array, "B Q"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B Q K"], Cache]:
        """Logits of the positions from `position` on, and the cache with these written; see `translator.Model`."""
        table = jnp.asarray(sinusoids(self.num_tokens, self.width))
        positions = jax.lax.dynamic_slice_in_dim(table, position, ids.shape[1])
        x, cache = self.decoder(self.embed(self.token_embed, ids, positions), cache=cache, position=position)
        return self.logits(x), cache
