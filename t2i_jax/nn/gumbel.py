"""Quantization by Gumbel-softmax."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.losses import divergence_from_uniform
from t2i_jax.nn.estimators import Quantized, straight_through


class GumbelQuantizer(nn.Module):
    """One of K codes by Gumbel-softmax over logits of the features (Jang et al. 2017, eq. 2 and section 2.2).

    Straight-through: the forward pass picks one code, the backward pass is that of the soft weights. Draws from
    the random stream "noise" while training; otherwise it is the likeliest code.

    Attributes:
      codebook_size: K.
      width: D.
      temperature: of the softmax, above 0.
      kl_weight: of the divergence from uniform codes, against collapse, in nats a feature vector.
    """

    codebook_size: int
    width: int
    temperature: float = 1.0
    kl_weight: float = 5e-4

    def setup(self):
        self.logits = nn.Dense(self.codebook_size)
        self.codes = self.param("codes", nn.initializers.normal(1.0), (self.codebook_size, self.width))

    def to_code_space(self, features: Float[Array, "B N D"]) -> Float[Array, "B N K"]:
        """Logits of the codes."""
        return self.logits(features.astype(jnp.float32))

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize."""
        logits = self.to_code_space(features)
        loss = self.kl_weight * jnp.mean(divergence_from_uniform(logits), -1)
        if train:
            logits = logits + jax.random.gumbel(self.make_rng("noise"), logits.shape)
        ids = jnp.argmax(logits, -1)
        one_hot = jax.nn.one_hot(ids, self.codebook_size)
        weights = straight_through(jax.nn.softmax(logits / self.temperature), one_hot) if train else one_hot
        return Quantized((weights @ self.codes).astype(features.dtype), ids, loss)

    def codebook(self) -> Float[Array, "K D"]:
        """The codes."""
        return self.codes
