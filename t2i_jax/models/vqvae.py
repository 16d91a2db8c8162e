"""VQ-VAE over a grid (van den Oord et al. 2017): pictures -> h x w tokens of one codebook -> pictures.

The encoder is plain convolutions, or a ResNet cut after one of its stages, then a convolution and ReLU; after the
quantizer come a convolution and three transposed ones.

Letters: B batch, H W pixels, h w token grid, N = h w tokens, K codebook size, D code width.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float
from ml_collections import FrozenConfigDict

from t2i_jax.models.backbone import Backbone, encoder_of
from t2i_jax.models.image_tokenizer import GridTokenizer
from t2i_jax.nn import quantizers
from t2i_jax.nn.convolutions import Conv, Down, Up

DOWNSAMPLING = (2, 4, 8, 16, 32)


PARTS = {"backbone": Backbone, "quantizer_options": quantizers.KINDS}  # whose fields `Model` takes


class Model(GridTokenizer):
    """VQ-VAE over a grid of tokens.

    Attributes:
      codebook_size: K.
      image_size: H, W, in pixels, one number where they are equal; divisible by `downsampling`.
      channels: of the pictures, 1 or 3.
      encoder: "conv", or "resnet".
      backbone: fields of `Backbone` that differ from its defaults; for a ResNet.
      pretrained: its weights are released ones (`config.backbone_weights`); otherwise it is trained from scratch,
        and never frozen.
      downsampling: pixels a token, along each side: 2, 4, 8, 16 or 32.
      width: of the convolutions.
      code_width: D.
      residual_blocks: before the quantizer and after it.
      quantizer: its kind, a key of `quantizers.KINDS`.
      quantizer_options: by kind, its fields that differ from defaults.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebooks stay float32.

    Raises:
      ValueError: sizes that do not fit each other.
    """

    codebook_size: int
    image_size: int | tuple[int, int]
    channels: int = 3
    encoder: str = "conv"
    backbone: Mapping | FrozenConfigDict = FrozenDict()
    pretrained: bool = False
    downsampling: int = 4
    width: int = 128
    code_width: int = 64
    residual_blocks: int = 2
    quantizer: str = "ema"
    quantizer_options: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        if self.downsampling not in DOWNSAMPLING:
            raise ValueError(f"downsampling {self.downsampling} is not among {DOWNSAMPLING}; choose one of them")
        self.rows = self.layout[0].height
        sizes = (self.width, self.downsampling, self.residual_blocks)
        self.features = encoder_of(self, lambda: ConvEncoder(*sizes, self.dtype))
        pixels = self.downsampling if self.encoder == "conv" else 2 ** (self.features.stage + 1)
        if pixels != self.downsampling:
            raise ValueError(
                f"downsampling {self.downsampling} is not the {pixels} pixels a token that backbone.stage"
                f" {self.features.stage} gives; change either"
            )
        self.to_codes = nn.Dense(self.code_width, dtype=self.dtype)
        self.code = self.make_quantizer(self.codebook_size, self.code_width)
        self.decoder = Decoder(*sizes, self.channels, self.dtype)

    @property
    def last_layer(self) -> str:
        """Path of the kernel that makes the pixels."""
        return f"decoder/Up_{self.downsampling.bit_length() - 2}/kernel"

    def encode(self, images: Float[Array, "B H W C"], *, train: bool = False) -> dict:
        """Features before quantization: `code` [B, N, D]."""
        features = self.features(images, train=train)
        if self.encoder == "resnet":
            features = nn.relu(self.to_codes(features))
        else:
            features = self.to_codes(nn.relu(features))
        return {"code": rearrange(features, "b h w d -> b (h w) d").astype(jnp.float32)}

    def decode(self, codes: Float[Array, "B N D"]) -> Float[Array, "B H W C"]:
        """Pixels of codes, not clipped."""
        grid = rearrange(codes, "b (h w) d -> b h w d", h=self.rows)
        return (self.decoder(grid).astype(jnp.float32) + 1) / 2


class ConvEncoder(nn.Module):
    """Halve the sides by 4 x 4 convolutions until they are `downsampling` times smaller, then residual blocks."""

    width: int
    downsampling: int
    residual_blocks: int
    dtype: str

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B h w D"]:
        """Features of pixels in [0, 1]; training is no different."""
        del train
        x = 2 * images - 1
        halvings = self.downsampling.bit_length() - 1
        for left in reversed(range(halvings)):
            x = Down(self.width // 2 if left else self.width, self.dtype)(x)
            x = nn.relu(x) if left else x
        for _ in range(self.residual_blocks):
            x = ResidualBlock(self.dtype)(x)
        return x


class Decoder(nn.Module):
    """A convolution, residual blocks, and transposed convolutions that double the sides; at least three."""

    width: int
    upsampling: int
    residual_blocks: int
    channels: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        x = Conv(self.width, self.dtype)(x)
        for _ in range(self.residual_blocks):
            x = ResidualBlock(self.dtype)(x)
        doublings = self.upsampling.bit_length() - 1
        for left in reversed(range(max(3, doublings))):
            width = self.width // 2 if left else self.channels
            # Where fewer doublings are needed than three, a transposed convolution of stride 1 is a convolution.
            layer = Up if left < doublings else Conv
            x = layer(width, self.dtype)(nn.relu(x))
        return x


class ResidualBlock(nn.Module):
    """Normalise, 3 x 3, 1 x 1, add (van den Oord et al. 2017, section 4.1); starts as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        width = x.shape[-1]
        y = nn.relu(nn.GroupNorm(num_groups=None, group_size=min(16, width), dtype=self.dtype)(x))
        y = nn.relu(Conv(width // 2, self.dtype)(y))
        return x + nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros_init())(y)
