"""BERT2GPT: a bidirectional text encoder and a causal decoder of image tokens, joined by cross attention."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike
from ml_collections import FrozenConfigDict

from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2
from t2i_jax.nn.attention import read_null
from t2i_jax.nn.dense import Dense, Head, normal_init
from t2i_jax.nn.stack import Cache


def shift_right(ids: Int[ArrayLike, "B N"], codebook_size: int) -> Int[Array, "B N"]:
    """Decoder inputs for targets `ids` in [0, K): BOS = K in front, the last id dropped."""
    return jnp.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=codebook_size)


def text_encoder(model: "Model") -> Bert:
    """The encoder of a translator by itself; its parameters are those below "bert"."""
    return Bert(vocab_size=model.text_vocab_size, dtype=model.dtype, **model.encoder)


PARTS = {"encoder": Bert, "decoder": GPT2}  # whose fields `Model` takes; defaults of configs are read here


class Model(nn.Module):
    """Captions in, logits of image tokens out.

    Encoder and decoder can start from released weights and are joined by cross attention (Rothe et al. 2020,
    "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", section 2, BERT2GPT). The decoder reads
    K + 1 ids (BOS = K) and writes K logits through an untied head without bias. A row marked `null` reads one
    learned vector instead of its caption, for classifier-free guidance (Ho & Salimans 2022, section 3.2).

    Attributes:
      codebook_size: K.
      num_tokens: N, image tokens in a picture.
      text_vocab_size: V.
      text_len: the longest text, in tokens.
      encoder: fields of `Bert` that differ from its defaults.
      decoder: fields of `GPT2` that differ from its defaults.
      dtype: of the computation; parameters are float32, and so are the logits.

    Raises:
      ValueError: a text has more tokens than the encoder has positions, or a picture more than the decoder.
    """

    codebook_size: int
    num_tokens: int
    text_vocab_size: int
    text_len: int
    encoder: Mapping | FrozenConfigDict = FrozenDict()
    decoder: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    has_stack = True
    text_tables = (("bert/word_embed/embedding", 0),)  # by path: the axis whose first V places are word pieces
    image_tables = ("gpt2/token_embed/embedding", "gpt2/position_embed/embedding", "head/kernel")

    def setup(self):
        self.bert = text_encoder(self)
        self.gpt2 = GPT2(vocab_size=self.codebook_size + 1, dtype=self.dtype, **self.decoder)
        width = self.gpt2.width
        if self.bert.width != width:
            self.enc_to_dec_proj = Dense(width, normal_init(width), self.dtype)
        self.null_caption = self.param("null_caption", normal_init(width), (1, width))
        self.head = Head(self.codebook_size, dtype=self.dtype)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        features: Float[ArrayLike, "B S _"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B L K"]:
        """Logits of every position under teacher forcing.

        Args:
          text_ids: in [0, V); S at most the encoder's positions.
          text_mask: True at real tokens.
          ids: image tokens in [0, K), of which the decoder is given those before each; L at most its positions.
          null: True for rows that read the null caption; None for none.
          features: what the encoder makes of the captions, where that is known already; it does not run then.
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          float32 logits; those at position i say what image token i is, and do not depend on it or on later ones.
        """
        return self.logits(self.states(text_ids, text_mask, ids, null, features=features, train=train))

    def states(self, text_ids, text_mask, ids, null=None, *, features=None, train=False) -> Float[Array, "B L D"]:
        """What `logits` reads at every position; the arguments are those of a call."""
        memory, memory_mask = self.encode(text_ids, text_mask, null, features=features, train=train)
        return self.gpt2(shift_right(ids, self.codebook_size), memory, memory_mask, train=train)[0]

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        """float32 logits of each position by itself."""
        return self.head(states)

    def encode(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        features: Float[ArrayLike, "B S _"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """What the decoder reads: memory in the decoder's width, and where it may be read.

        In a null row that is the learned vector at position 0 and nothing else.
        """
        memory = self.bert(text_ids, text_mask, train=train) if features is None else jnp.asarray(features)
        if self.bert.width != self.gpt2.width:
            memory = self.enc_to_dec_proj(memory)
        return read_null(memory, jnp.asarray(text_mask), null, self.null_caption)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache for `num_tokens` positions over the memory that `encode` returned."""
        return self.gpt2.init_cache(memory, memory_mask, self.num_tokens)

    def decode_step(
        self, ids: Int[Array, "B Q"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B Q K"], Cache]:
        """Logits of the positions from `position` on, and the cache with these positions written.

        Args:
          ids: the decoder's input there, in [0, K]: BOS at position 0, afterwards the token before.
          position: of the first, 0 <= position <= num_tokens - Q; may be traced (and is not checked then).
          cache: from `init_cache`, with all earlier positions written; what else it holds does not matter.
        """
        states, cache = self.gpt2(ids, cache=cache, position=position)
        return self.logits(states), cache
