"""VQ-VAE over a grid (van den Oord et al. 2017): pictures -> h x w tokens of one codebook -> pictures.

The encoder is plain convolutions or a ResNet cut after one of its stages; then a convolution and ReLU, the
quantizer, a convolution and three transposed ones.

Letters: B batch, H W pixels, h w token grid, N = h w tokens, K codebook size, D code width.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int
from ml_collections import FrozenConfigDict

from t2i_jax.models import quantizers

UPSAMPLING = {2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2), 16: (4, 2, 2), 32: (4, 4, 2)}


class Model(nn.Module):
    """VQ-VAE over a grid of tokens.

    Attributes:
      codebook_size: K.
      image_size: H = W, in pixels; divisible by `downsampling`.
      channels: of the pictures, 1 or 3.
      downsampling: pixels a token, along each side: a key of `UPSAMPLING`.
      width: of the convolutions.
      code_width: D.
      residual_blocks: before the quantizer and after it.
      quantizer: its kind, a key of `quantizers.KINDS`.
      quantizer_options: other fields of that kind.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebooks stay float32.

    Raises:
      ValueError: sizes that do not fit each other.
    """

    codebook_size: int
    image_size: int
    channels: int = 3
    downsampling: int = 4
    width: int = 128
    code_width: int = 64
    residual_blocks: int = 2
    quantizer: str = "ema"
    quantizer_options: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        if self.downsampling not in UPSAMPLING:
            raise ValueError(
                f"downsampling {self.downsampling} is unknown; choose {', '.join(map(str, UPSAMPLING))}"
            )
        if self.image_size % self.downsampling:
            raise ValueError(f"image_size {self.image_size} is not divisible by downsampling {self.downsampling}")
        self.encoder = ConvEncoder(self.width, self.downsampling, self.residual_blocks, self.dtype)
        self.to_codes = nn.Conv(self.code_width, (1, 1), dtype=self.dtype)
        kind, options = self.quantizer, self.quantizer_options
        self.code = quantizers.make(kind, self.codebook_size, self.code_width, **options)
        self.decoder = Decoder(
            self.width, UPSAMPLING[self.downsampling], self.residual_blocks, self.channels, self.dtype
        )

    @property
    def grid(self) -> tuple[int, int]:
        """h and w."""
        side = self.image_size // self.downsampling
        return side, side

    @property
    def num_tokens(self) -> int:
        """N, tokens a picture."""
        return self.grid[0] * self.grid[1]

    @property
    def depths(self) -> dict[str, int]:
        """Tokens a feature vector, by codebook."""
        return {"code": 1}

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B"], Int[Array, "B N"]]:
        """Reconstruct.

        Args:
          images: pixels in [0, 1].
          train: move the codebook's averages (collection `codebook` must be mutable); Gumbel noise comes from
            the random stream "dropout".

        Returns:
          Reconstructions (not clipped), what the quantizer asks for, and ids in [0, K), row by row.
        """
        codes, ids, asked = self.code(self.encode(images)["code"], train=train)
        return self.decode(codes), asked, ids

    def encode(self, images: Float[Array, "B H W C"]) -> dict:
        """Features before quantization: `code` [B, N, D]."""
        features = self.to_codes(nn.relu(self.encoder(2 * images - 1)))
        return {"code": rearrange(features, "b h w d -> b (h w) d").astype(jnp.float32)}

    def decode(self, codes: Float[Array, "B N D"]) -> Float[Array, "B H W C"]:
        """Pixels of codes, not clipped."""
        grid = rearrange(codes, "b (h w) d -> b h w d", h=self.grid[0])
        return (self.decoder(grid).astype(jnp.float32) + 1) / 2

    def lookup(self, images: Float[Array, "B H W C"]) -> dict:
        """Features as they are compared with codes."""
        return {"code": self.code.project(self.encode(images)["code"])}

    def tables(self) -> dict:
        """Codes as features are compared with them; for kinds that have a codebook."""
        return {"code": self.code.table()}

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features."""
        return self.code.codebook()

    def tokenize(self, images: Float[Array, "B H W C"]) -> Int[Array, "B N"]:
        """Ids in [0, K) of pixels in [0, 1], row by row."""
        return self(images)[2]

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W C"]:
        """Pixels in [0, 1] of ids in [0, K)."""
        return jnp.clip(self.decode(self.codebook()[ids]), 0.0, 1.0)


class ConvEncoder(nn.Module):
    """Halve the sides by 4 x 4 convolutions until they are `downsampling` times smaller, then residual blocks."""

    width: int
    downsampling: int
    residual_blocks: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        halvings = self.downsampling.bit_length() - 1
        for number in range(halvings):
            width = self.width // 2 if number < halvings - 1 else self.width
            x = nn.Conv(width, (4, 4), strides=2, padding=1, dtype=self.dtype)(x)
            x = x if number == halvings - 1 else nn.relu(x)
        for _ in range(self.residual_blocks):
            x = ResidualBlock(self.dtype)(x)
        return x


class Decoder(nn.Module):
    """A convolution, residual blocks and three transposed convolutions."""

    width: int
    strides: tuple[int, int, int]
    residual_blocks: int
    channels: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.residual_blocks):
            x = ResidualBlock(self.dtype)(x)
        widths = (self.width, self.width // 2, self.channels)
        for width, stride in zip(widths, self.strides, strict=True):
            side = 2 * stride if stride > 1 else 3
            x = nn.ConvTranspose(width, (side, side), (stride, stride), dtype=self.dtype)(nn.relu(x))
        return x


class ResidualBlock(nn.Module):
    """Normalise, 3 x 3, 1 x 1, add (van den Oord et al. 2017, section 4.1); starts as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        width = x.shape[-1]
        y = nn.relu(nn.GroupNorm(num_groups=None, group_size=min(16, width), dtype=self.dtype)(x))
        y = nn.relu(nn.Conv(width // 2, (3, 3), dtype=self.dtype)(y))
        return x + nn.Conv(width, (1, 1), dtype=self.dtype, kernel_init=nn.initializers.zeros_init())(y)
