"""The original Transformer (Vaswani et al. 2017, section 3): captions -> image tokens, from scratch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.models.gpt2 import Cache, layer_norm
from t2i_jax.models.translator import shift_right
from t2i_jax.nn.layers import MLP, CrossAttention, KeyValue, SelfAttention, normal_init, read_null


def sinusoids(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Positions as sines (even channels) and cosines (odd ones) of falling frequency (section 3.5).

    Raises:
      ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"width {width} is odd; sines and cosines come in pairs")
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each added to its input and then normalised (section 3.1)."""

    width: int
    heads: int
    mlp_width: int
    dropout: float
    dtype: str

    def setup(self):
        self.attn = SelfAttention(self.width, self.heads, self.dropout, dtype=self.dtype)
        self.mlp = MLP(self.mlp_width, nn.relu, dtype=self.dtype)
        self.ln_attn, self.ln_mlp = (layer_norm(self.dtype) for _ in range(2))
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B S D"], mask: Bool[Array, "B 1 1 S"], *, train: bool
    ) -> Float[Array, "B S D"]:
        x = self.ln_attn(x + self.drop(self.attn(x, mask, train=train), deterministic=not train))
        return self.ln_mlp(x + self.drop(self.mlp(x), deterministic=not train))


class DecoderLayer(nn.Module):
    """An encoder's layer with cross attention between its two parts."""

    width: int
    heads: int
    mlp_width: int
    dropout: float
    dtype: str

    def setup(self):
        self.attn = SelfAttention(self.width, self.heads, self.dropout, dtype=self.dtype)
        self.cross_attn = CrossAttention(self.width, self.heads, self.dropout, dtype=self.dtype)
        self.mlp = MLP(self.mlp_width, nn.relu, dtype=self.dtype)
        self.ln_attn, self.ln_cross_attn, self.ln_mlp = (layer_norm(self.dtype) for _ in range(3))
        self.drop = nn.Dropout(self.dropout)

    def finish(self, x, attended, memory, memory_mask, train=False):
        x = self.ln_attn(x + self.drop(attended, deterministic=not train))
        read = self.cross_attn(x, memory, memory_mask, train=train)
        x = self.ln_cross_attn(x + self.drop(read, deterministic=not train))
        return self.ln_mlp(x + self.drop(self.mlp(x), deterministic=not train))

    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Bool[Array, "1 1 L L"],
        memory: Float[Array, "B S D"],
        memory_mask: Bool[Array, "B S"],
        *,
        train: bool,
    ) -> Float[Array, "B L D"]:
        attended = self.attn(x, mask, train=train)
        return self.finish(x, attended, self.cross_attn.project_memory(memory), memory_mask, train)

    def decode_step(
        self,
        x: Float[Array, "B 1 D"],
        position: Int[ScalarLike, ""],
        cache: KeyValue,
        memory: KeyValue,
        memory_mask: Bool[Array, "B S"],
    ) -> tuple[Float[Array, "B 1 D"], KeyValue]:
        attended, cache = self.attn.decode_step(x, position, cache)
        return self.finish(x, attended, memory, memory_mask), cache


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
      dropout: rate on embeddings, attention weights and every part of a layer, while training.
      dtype: of the computation; parameters are float32, and so are the logits.
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
    dtype: str = "float32"

    def setup(self):
        def embed(rows):
            init = nn.initializers.normal(self.width**-0.5)
            return nn.Embed(rows, self.width, embedding_init=init, dtype=self.dtype)

        self.text_embed, self.token_embed = embed(self.text_vocab_size), embed(self.codebook_size + 1)
        shape = (self.width, self.heads, self.mlp_width, self.dropout, self.dtype)
        self.encoder = [EncoderLayer(*shape) for _ in range(self.encoder_layers)]
        self.decoder = [DecoderLayer(*shape) for _ in range(self.decoder_layers)]
        self.null_caption = self.param("null_caption", normal_init(self.width), (1, self.width))
        self.drop = nn.Dropout(self.dropout)

    def place(self, embed, ids, positions):
        return embed(ids) * self.width**0.5 + positions.astype(self.dtype)

    def logits(self, x):
        return self.token_embed.attend(x)[..., : self.codebook_size].astype(jnp.float32)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        decoder_ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L K"]:
        """Logits of every position under teacher forcing; see `translator.Model`.

        Raises:
          ValueError: a text longer than `text_len`, or more than `num_tokens` image tokens.
        """
        memory, memory_mask = self.encode(text_ids, text_mask, null, train=train)
        length = decoder_ids.shape[1]
        if length > self.num_tokens:
            raise ValueError(f"sequence has {length} tokens; the decoder writes {self.num_tokens} (num_tokens)")
        x = self.place(self.token_embed, decoder_ids, jnp.asarray(sinusoids(length, self.width)))
        x = self.drop(x, deterministic=not train)
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        for layer in self.decoder:
            x = layer(x, mask, memory, memory_mask, train=train)
        return self.logits(x)

    def teacher_forced(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B N"],
        null: Bool[ArrayLike, " B"] | None = None,
    ) -> Float[Array, "B N K"]:
        """Logits of target `ids` in [0, K), each from those before it; the arguments of `__call__` otherwise."""
        return self(text_ids, text_mask, shift_right(jnp.asarray(ids), self.codebook_size), null)

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
        if length > self.text_len:
            raise ValueError(f"text has {length} tokens; the encoder reads {self.text_len} (text_len)")
        x = self.place(self.text_embed, text_ids, jnp.asarray(sinusoids(length, self.width)))
        x = self.drop(x, deterministic=not train)
        for layer in self.encoder:
            x = layer(x, text_mask[:, None, None], train=train)
        return read_null(x, text_mask, null, self.null_caption)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache for `num_tokens` positions over the memory that `encode` returned."""
        shape = (memory.shape[0], self.num_tokens, self.heads, self.width // self.heads)
        # One array for each leaf: a donated cache must not hold the same buffer twice.
        return Cache(
            tuple(KeyValue(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in self.decoder),
            tuple(layer.cross_attn.project_memory(memory) for layer in self.decoder),
            memory_mask,
        )

    def decode_step(
        self, ids: Int[Array, " B"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B K"], Cache]:
        """Logits of one position, and the cache with that position written; see `translator.Model`."""
        positions = jax.lax.dynamic_slice_in_dim(jnp.asarray(sinusoids(self.num_tokens, self.width)), position, 1)
        x = self.place(self.token_embed, ids[:, None], positions)
        written = []
        for layer, own, memory in zip(self.decoder, cache.self_attention, cache.cross_attention, strict=True):
            x, own = layer.decode_step(x, position, own, memory, cache.memory_mask)
            written.append(own)
        return self.logits(x[:, 0]), cache._replace(self_attention=tuple(written))
