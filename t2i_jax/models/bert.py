"""BERT, the bidirectional text encoder (Devlin et al. 2019, section 3), without its pooler."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.models.parts import embedding, stack
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.positions import check_length
from t2i_jax.nn.stack import FEW

EPSILON = 1e-12


class Bert(nn.Module):
    """BERT's encoder; the defaults are bert-base. Released weights fit it.

    Attributes:
      vocab_size: V, the size of the text vocabulary.
      width: D.
      layers, heads, mlp_width: depth, attention heads (a divisor of the width), width inside the MLP.
      max_positions: the longest text it can read.
      dropout: rate on embeddings and both branches of a layer, while training.
      dtype: of the computation; parameters are float32.
      attention_dropout, remat, unroll: see `Stack`.
    """

    vocab_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    max_positions: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = FEW

    def setup(self):
        self.word_embed = embedding(self, self.vocab_size)
        self.position_embed = embedding(self, self.max_positions)
        self.type_embed = embedding(self, 2)
        self.ln_embed = layer_norm(EPSILON, self.dtype)
        self.drop = nn.Dropout(self.dropout)
        self.encoder = stack(self, self.layers, "gelu", norm="post", epsilon=EPSILON)

    def __call__(
        self,
        ids: Int[ArrayLike, "B S"],
        mask: Bool[ArrayLike, "B S"],
        types: Int[ArrayLike, "B S"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B S D"]:
        """Encode texts.

        Args:
          ids: token ids in [0, V).
          mask: True at real tokens, which come first; no position looks at the others.
          types: segment of each token, 0 or 1; all 0 when None.
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          The last layer's states. Those at masked positions mean nothing.

        Raises:
          ValueError: the text is longer than `max_positions`.
        """
        length = ids.shape[1]
        check_length("text", length, "the encoder reads", self.max_positions, "max_positions")
        types = jnp.zeros_like(ids) if types is None else types
        x = self.word_embed(ids) + self.position_embed(jnp.arange(length)) + self.type_embed(types)
        x = self.drop(self.ln_embed(x), deterministic=not train)
        return self.encoder(x, jnp.asarray(mask)[:, None, None], train=train)[0]
