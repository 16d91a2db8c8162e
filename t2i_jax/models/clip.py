"""CLIP (Radford et al. 2021, section 2.4): captions and pictures in one space, to say how well they agree."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int
from ml_collections import FrozenConfigDict

from t2i_jax.models.layers import MLP, SelfAttention, normal_init

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pixels that the released weights were trained on
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Gelu by a sigmoid (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}


def layer_norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)


class Block(nn.Module):
    """One pre-norm block: self-attention and MLP."""

    width: int
    heads: int
    mlp_width: int
    activation: str

    def setup(self):
        self.ln_1, self.ln_2 = layer_norm(), layer_norm()
        self.attn = SelfAttention(self.width, self.heads)
        self.mlp = MLP(self.mlp_width, ACTIVATIONS[self.activation])

    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "#B 1 #L L"]) -> Float[Array, "B L D"]:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Text(nn.Module):
    """The text tower: a causal transformer, read at the end of the text."""

    vocab_size: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    end_id: int
    features: int

    @nn.compact
    def __call__(self, ids: Int[ArrayLike, "B S"]) -> Float[Array, "B F"]:
        length = ids.shape[1]
        if length > self.positions:
            raise ValueError(f"text has {length} tokens; the encoder reads {self.positions} (positions)")
        init = normal_init(self.width)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="token_embed")(ids)
        x = x + self.param("position_embed", init, (self.positions, self.width))[:length]
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        for i in range(self.layers):
            x = Block(self.width, self.heads, self.mlp_width, self.activation, name=f"blocks_{i}")(x, mask)
        x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln_f")(x)
        end = (jnp.asarray(ids) == self.end_id).argmax(-1)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return nn.Dense(self.features, use_bias=False, kernel_init=init, name="projection")(x)


class Vision(nn.Module):
    """The picture tower: a ViT (Dosovitskiy et al. 2021, section 3.1), read at its class token."""

    image_size: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    features: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B F"]:
        init, (height, width) = normal_init(self.width), images.shape[1:3]
        if (height, width) != (self.image_size, self.image_size):
            shape = (len(images), self.image_size, self.image_size, 3)
            images = jnp.clip(jax.image.resize(images, shape, "cubic", antialias=True), 0.0, 1.0)
        x = (images - jnp.array(MEAN)) / jnp.array(DEVIATION)
        x = rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch)
        x = nn.Dense(self.width, use_bias=False, kernel_init=init, name="patch_embed")(x)
        first = jnp.broadcast_to(self.param("class_embed", init, (self.width,)), (len(x), 1, self.width))
        x = jnp.concatenate([first, x], axis=1)
        x = x + self.param("position_embed", init, (x.shape[1], self.width))
        x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln_pre")(x)
        mask = jnp.ones((1, 1, 1, x.shape[1]), bool)
        for i in range(self.layers):
            x = Block(self.width, self.heads, self.mlp_width, self.activation, name=f"blocks_{i}")(x, mask)
        x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln_f")(x[:, 0])
        return nn.Dense(self.features, use_bias=False, kernel_init=init, name="projection")(x)


class Model(nn.Module):
    """Both towers.

    Attributes:
      text: fields of `Text`.
      vision: fields of `Vision`.
      features: F, width of the common space.
    """

    text: Mapping | FrozenConfigDict
    vision: Mapping | FrozenConfigDict
    features: int = 512

    def setup(self):
        self.text_tower = Text(**self.text, features=self.features)
        self.vision_tower = Vision(**self.vision, features=self.features)

    def __call__(self, ids: Int[ArrayLike, "B S"], images: Float[Array, "B H W 3"]) -> Float[Array, "B"]:
        """Cosine of each text and the picture beside it, in [-1, 1].

        Args:
          ids: in [0, V), each text with its end; what follows the end is not read.
          images: square pictures in [0, 1], of any side: they are resized (bicubic, antialiased).
        """
        return jnp.sum(self.text_features(ids) * self.image_features(images), axis=-1)

    def text_features(self, ids: Int[ArrayLike, "B S"]) -> Float[Array, "B F"]:
        """Where texts stand, of length 1."""
        return _normalised(self.text_tower(ids))

    def image_features(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B F"]:
        """Where pictures stand, of length 1."""
        return _normalised(self.vision_tower(images))


def _normalised(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
