"""Convolutional autoencoder, plain or variational (Kingma & Welling 2014): pictures <-> one vector each.

Two strided convolutions down and two transposed ones up, with dense layers to and from the latent vector between
them. What the decoder gives are logits: a Bernoulli likelihood reads them as they are, a Gaussian one takes their
sigmoid as its mean, and so pictures are in [0, 1] either way.

The convolutions are written as matrix products: XLA's own strided ones, and their gradients, are slow on CPU.

Letters: B batch, H W pixels, C channels, L latent units, F features.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

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


class Down(nn.Module):
    """Convolution, 4 x 4 kernel, stride 2, one pixel of zeros around: H x W -> H/2 x W/2."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """As one matrix product over patches."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=2, q=2)
        h, w = x.shape[1] - 1, x.shape[2] - 1
        patches = [x[:, i : i + h, j : j + w] for i in range(2) for j in range(2)]
        kernel = rearrange(kernel, "(i p) (j q) c d -> (i j p q c) d", p=2, q=2)
        return jnp.concatenate(patches, axis=-1) @ kernel + bias


class Up(nn.Module):
    """Transposed convolution, 4 x 4 kernel, stride 2, one pixel cut off around: H x W -> 2H x 2W."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """As one matrix product to patches, which overlap and are summed."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        patches = x @ rearrange(kernel, "(i p) (j q) c d -> c (i j p q d)", p=2, q=2)
        patches = rearrange(patches, "b h w (i j n) -> i j b h w n", i=2, j=2)
        x = sum(
            jnp.pad(patches[i, j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0))) for i in range(2) for j in range(2)
        )
        x = rearrange(x, "b h w (p q d) -> b (h p) (w q) d", p=2, q=2)
        return x[:, 1:-1, 1:-1] + bias


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
