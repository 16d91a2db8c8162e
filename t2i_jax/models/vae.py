"""Convolutional autoencoder, plain or variational (Kingma & Welling 2014): pictures <-> one vector each.

Two strided convolutions down and two transposed ones up, with dense layers to and from the latent vector between
them. What the decoder gives are logits: a Bernoulli likelihood reads them as they are, a Gaussian one takes their
sigmoid as its mean, and so pictures are in [0, 1] either way.

Letters: B batch, H W pixels, C channels, L latent units, F features.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.models.convolutions import Down, Up

SHRINK = 4  # by both convolutions together


class Model(nn.Module):
    """Autoencoder.

    Attributes:
      image_size: H = W, in pixels; divisible by 4.
      channels: C.
      latent: L, units of the latent vector.
      width: channels after the first convolution, and half of those after the second.
      variational: the encoder gives a Gaussian a picture, from which the latent vector is drawn; False is a
        plain autoencoder.
      encoder: what turns pictures into features, a key of ENCODERS.
    """

    image_size: int
    channels: int = 3
    latent: int = 32
    width: int = 32
    variational: bool = True
    encoder: str = "conv"

    def setup(self):
        if self.image_size % SHRINK:
            raise ValueError(f"image_size {self.image_size} is not divisible by {SHRINK}")
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder {self.encoder!r} is unknown; choose {', '.join(ENCODERS)}")
        self.features = ENCODERS[self.encoder](self.width)
        self.mu = nn.Dense(self.latent)
        if self.variational:
            self.logvar = nn.Dense(self.latent)
        self.decoder = Decoder(self.image_size // SHRINK, self.width, self.channels)

    def __call__(
        self, images: Float[Array, "B H W C"], key: Array | None = None
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B L"], Float[Array, "B L"] | None]:
        """Logits of the reconstructions, and what `encode` says.

        Args:
          images: pixels in [0, 1].
          key: draws the latent vectors, in a variational model; None takes their means.
        """
        mu, logvar = self.encode(images)
        drawn = key is not None and logvar is not None
        return self.logits(reparameterise(key, mu, logvar) if drawn else mu), mu, logvar

    def encode(self, images: Float[Array, "B H W C"]) -> tuple[Float[Array, "B L"], Float[Array, "B L"] | None]:
        """Means and log variances of latent vectors; in a plain autoencoder the vectors themselves, and None."""
        features = self.features(images)
        return self.mu(features), self.logvar(features) if self.variational else None

    def logits(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """Logits of the pixels of latent vectors."""
        return self.decoder(z)

    def decode(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """Pixels in [0, 1] of latent vectors."""
        return jax.nn.sigmoid(self.logits(z))


def reparameterise(key, mu: Float[Array, "B L"], logvar: Float[Array, "B L"]) -> Float[Array, "B L"]:
    """Draw from N(mu, exp(logvar)) such that gradients reach both (Kingma & Welling 2014, section 2.4)."""
    return mu + jnp.exp(logvar / 2) * jax.random.normal(key, mu.shape, mu.dtype)


class ConvEncoder(nn.Module):
    """Pictures -> features, by two convolutions of stride 2."""

    width: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
        """F = 2 width * H/4 * W/4."""
        x = nn.relu(Down(self.width, name="conv_1")(images))
        x = nn.relu(Down(2 * self.width, name="conv_2")(x))
        return rearrange(x, "b h w d -> b (h w d)")


class Decoder(nn.Module):
    """Latent vectors -> logits, by a dense layer and two transposed convolutions of stride 2."""

    side: int
    width: int
    channels: int

    @nn.compact
    def __call__(self, z: Float[Array, "B L"]) -> Float[Array, "B H W C"]:
        """H = W = 4 side."""
        x = nn.relu(nn.Dense(self.side**2 * 2 * self.width, name="dense")(z))
        x = rearrange(x, "b (h w d) -> b h w d", h=self.side, w=self.side)
        x = nn.relu(Up(self.width, name="conv_1")(x))
        return Up(self.channels, name="conv_2")(x)


ENCODERS = {"conv": ConvEncoder}
