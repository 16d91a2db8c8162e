"""Convolutional autoencoder, plain or variational (Kingma & Welling 2014): pictures <-> one vector each.

Two strided convolutions down and two transposed ones up, with dense layers to and from the latent vector between
them. What the decoder gives are logits: a Bernoulli likelihood reads them as they are, a Gaussian one takes their
sigmoid as its mean, and so pictures are in [0, 1] either way.

Letters: B batch, H W pixels, C channels, L latent units, F features.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float
from ml_collections import FrozenConfigDict

from t2i_jax.models.backbone import Backbone, encoder_of
from t2i_jax.nn.convolutions import Down, Up
from t2i_jax.nn.layout import positions

SHRINK = 4  # by both convolutions together


PARTS = {"backbone": Backbone}  # whose fields `Model` takes


class Model(nn.Module):
    """Autoencoder.

    Attributes:
      image_size: H, W, in pixels, one number where they are equal; divisible by 4.
      channels: C.
      latent: L, units of the latent vector.
      width: channels after the first convolution, and half of those after the second.
      variational: the encoder gives a Gaussian a picture, from which the latent vector is drawn; False is a
        plain autoencoder.
      encoder: what turns pictures into features, "conv" or "resnet".
      backbone: fields of `Backbone` that differ from its defaults; for a ResNet.
      pretrained: its weights are released ones (`config.backbone_weights`); otherwise it is trained from scratch,
        and never frozen.
      dtype: computation type, "float32" or "bfloat16"; parameters, latent vectors and logits stay float32.
    """

    image_size: int | tuple[int, int]
    channels: int = 3
    latent: int = 32
    width: int = 32
    variational: bool = True
    encoder: str = "conv"
    backbone: Mapping | FrozenConfigDict = FrozenDict()
    pretrained: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        positions(self.image_size, SHRINK)  # refuses a size before anything is initialised
        super().__post_init__()

    def setup(self):
        self.features = encoder_of(self, lambda: ConvEncoder(self.width, self.dtype))
        self.mu = nn.Dense(self.latent)
        if self.variational:
            self.logvar = nn.Dense(self.latent)
        self.decoder = Decoder(positions(self.image_size, SHRINK), self.width, self.channels, self.dtype)

    def __call__(
        self, images: Float[Array, "B H W C"], key: Array | None = None, *, train: bool = False
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B L"], Float[Array, "B L"] | None]:
        """Logits of the reconstructions, and what `encode` says.

        Args:
          images: pixels in [0, 1].
          key: draws the latent vectors, in a variational model; None takes their means.
          train: move batch statistics (`batch_stats` must be mutable).
        """
        mu, logvar = self.encode(images, train=train)
        drawn = key is not None and logvar is not None
        return self.logits(reparameterise(key, mu, logvar) if drawn else mu), mu, logvar

    def encode(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"] | None]:
        """Means and log variances of latent vectors; in a plain autoencoder the vectors themselves, and None."""
        features = rearrange(self.features(images, train=train), "b h w d -> b (h w d)").astype(jnp.float32)
        return self.mu(features), self.logvar(features) if self.variational else None

    def logits(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """Logits of the pixels of latent vectors."""
        return self.decoder(z).astype(jnp.float32)

    def decode(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """Pixels in [0, 1] of latent vectors."""
        return jax.nn.sigmoid(self.logits(z))


def reparameterise(key, mu: Float[Array, "B L"], logvar: Float[Array, "B L"]) -> Float[Array, "B L"]:
    """Draw from N(mu, exp(logvar)) such that gradients reach both (Kingma & Welling 2014, section 2.4)."""
    return mu + jnp.exp(logvar / 2) * jax.random.normal(key, mu.shape, mu.dtype)


class ConvEncoder(nn.Module):
    """Pictures -> a feature map, by two convolutions of stride 2."""

    width: int
    dtype: str

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B h w D"]:
        """h, w = H/4, W/4; D = 2 width. Training is no different."""
        del train
        x = nn.relu(Down(self.width, self.dtype, name="conv_1")(images))
        return nn.relu(Down(2 * self.width, self.dtype, name="conv_2")(x))


class Decoder(nn.Module):
    """Latent vectors -> logits, by a dense layer and two transposed convolutions of stride 2."""

    grid: tuple[int, int]
    width: int
    channels: int
    dtype: str

    @nn.compact
    def __call__(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """H, W are 4 times the sides of the grid."""
        h, w = self.grid
        x = nn.relu(nn.Dense(h * w * 2 * self.width, dtype=self.dtype, name="dense")(z))
        x = rearrange(x, "b (h w d) -> b h w d", h=h, w=w)
        x = nn.relu(Up(self.width, self.dtype, name="conv_1")(x))
        return Up(self.channels, self.dtype, name="conv_2")(x)
