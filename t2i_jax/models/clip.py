"""CLIP: how well a picture fits a text, with a vision transformer for the pictures.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", sections 2.3 and 2.4.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from flax.core import FrozenDict
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from ml_collections import FrozenConfigDict

from t2i_jax.models.parts import embedding, stack
from t2i_jax.nn.dense import Head, normal_init
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.positions import check_length
from t2i_jax.nn.stack import FEW

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pixels CLIP was trained on: red, green, blue
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
EPSILON = 1e-5


def preprocess(images: Float[ArrayLike, "B H W C"], side: int) -> Float[Array, "B side side 3"]:
    """Pixels in [0, 1] of any size -> what CLIP's picture tower reads.

    As released: bicubic and antialiased (Keys 1981, a = -1/2) to `side` along the shorter edge, first across and
    then down, each time rounded to uint8 values; the centre crop; normalised by mean and standard deviation. A grey
    picture (C = 1) is read as red, green and blue alike.
    """
    batch, *edges, channels = images.shape
    height, width = (side * edge // min(edges) for edge in edges)
    levels = 255 * jnp.asarray(images)
    for shape in ((batch, edges[0], width, channels), (batch, height, width, channels)):
        levels = jnp.clip(jnp.round(jax.image.resize(levels, shape, "cubic")), 0, 255)
    top, left = (height - side) // 2, (width - side) // 2
    square = levels[:, top : top + side, left : left + side]
    return (square / 255 - jnp.array(MEAN)) / jnp.array(DEVIATION)


class Tower(nn.Module):
    """What both towers have: pre-norm layers, and a projection to the features they share.

    Attributes:
      features: F, width of the features.
      width: D.
      heads, mlp_width, layers: attention heads (a divisor of the width), width inside the MLP, depth.
      activation: of the MLP, "quick_gelu" or "gelu".
      dtype: of the computation; parameters are float32, and so are the features.
      unroll: see `Stack`.
    """

    features: int
    width: int
    heads: int
    mlp_width: int
    layers: int = 12
    activation: str = "quick_gelu"
    dtype: str = "float32"
    unroll: int = FEW

    def setup(self):
        self.encoder = stack(self, self.layers, self.activation, epsilon=EPSILON)
        self.ln_out = layer_norm(EPSILON, self.dtype)
        self.project = Head(self.features, dtype=self.dtype)

    def normalised(self, state: Float[Array, "B D"]) -> Float[Array, "B F"]:
        """Features of length 1."""
        features = self.project(self.ln_out(state))
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


class Vision(Tower):
    """A vision transformer (Dosovitskiy et al. 2021, section 3.1) that normalises its embeddings too.

    The defaults are those of ViT-B/32.

    Attributes:
      image_size, patch_size: sides of a picture and of the patches it is cut into, in pixels.
    """

    width: int = 768
    heads: int = 12
    mlp_width: int = 3072
    image_size: int = 224
    patch_size: int = 32

    def setup(self):
        super().setup()
        init, positions = normal_init(self.width), (self.image_size // self.patch_size) ** 2 + 1
        self.patch_embed = nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=init)
        self.class_embed = self.param("class_embed", init, (self.width,))
        self.position_embed = self.param("position_embed", init, (positions, self.width))
        self.ln_embed = layer_norm(EPSILON, self.dtype)

    def __call__(self, images: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        size = self.patch_size
        patches = rearrange(images, "B (h p) (w q) C -> B (h w) (C p q)", p=size, q=size)
        first = jnp.broadcast_to(self.class_embed, (len(images), 1, self.width))
        x = jnp.concatenate([first.astype(self.dtype), self.patch_embed(patches)], 1)
        x = self.ln_embed(x + self.position_embed.astype(self.dtype))
        x, _ = self.encoder(x, jnp.ones((1, 1, 1, x.shape[1]), bool))
        return self.normalised(x[:, 0])


class Text(Tower):
    """A causal transformer whose state at the end of the text stands for it; the defaults are those of ViT-B/32.

    Attributes:
      vocab_size: V.
      positions: the longest text it can read, start and end included.
      end_id: the first one ends a text; None: the largest id in the text does, wherever its first is. So it is in
        the first releases.
    """

    width: int = 512
    heads: int = 8
    mlp_width: int = 2048
    vocab_size: int = 49408
    positions: int = 77
    end_id: int | None = 49407

    def setup(self):
        super().setup()
        self.token_embed, self.position_embed = embedding(self, self.vocab_size), embedding(self, self.positions)

    def __call__(self, ids: Int[Array, "B S"]) -> Float[Array, "B F"]:
        length = ids.shape[1]
        check_length("text", length, "the tower reads", self.positions, "positions")
        x = self.token_embed(ids) + self.position_embed(jnp.arange(length))
        x, _ = self.encoder(x.astype(self.dtype))
        end = jnp.argmax(ids if self.end_id is None else ids == self.end_id, axis=1)
        return self.normalised(x[jnp.arange(len(ids)), end])


class Model(nn.Module):
    """Pictures and texts in, features of both in one space out; the defaults are ViT-B/32. Released weights fit it.

    The learned temperature is left out: it changes no order.

    Attributes:
      features: F, width of the features.
      vision: fields of `Vision` that differ from its defaults.
      text: fields of `Text` that differ from its defaults.
      dtype: of the computation; parameters are float32, and so are the features.
    """

    features: int = 512
    vision: Mapping | FrozenConfigDict = FrozenDict()
    text: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        self.vision_tower = Vision(self.features, dtype=self.dtype, **self.vision)
        self.text_tower = Text(self.features, dtype=self.dtype, **self.text)

    def __call__(
        self, images: Float[ArrayLike, "I side side 3"], ids: Int[ArrayLike, "T S"]
    ) -> Float[Array, "I T"]:
        """How well each picture fits each text: the cosine of their features, in [-1, 1]."""
        return self.encode_images(images) @ self.encode_texts(ids).T

    def encode_images(self, images: Float[ArrayLike, "B side side 3"]) -> Float[Array, "B F"]:
        """Features of length 1 of pictures as `preprocess` makes them."""
        return self.vision_tower(jnp.asarray(images))

    def encode_texts(self, ids: Int[ArrayLike, "B S"]) -> Float[Array, "B F"]:
        """Features of length 1 of texts, ids in [0, V). What stands behind a text's end changes nothing.

        Raises:
          ValueError: the text is longer than `positions`.
        """
        return self.text_tower(jnp.asarray(ids))
