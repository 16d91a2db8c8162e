"""VQGAN (Esser et al. 2021, section 3.1 and appendix A): pictures -> h x w tokens of one codebook -> pictures.

Levels of residual blocks, each of half the side of the one before, and attention at coarse ones. The defaults are
the released f16 model. Parts have the names of the released code, CompVis/taming-transformers.

Letters: B batch, H W pixels, h w token grid, N = h w tokens, K codebook size, D code width, C channels.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float
from ml_collections import FrozenConfigDict

from t2i_jax.models.image_tokenizer import GridTokenizer
from t2i_jax.nn import quantizers
from t2i_jax.nn.attention import KeyValue, attend
from t2i_jax.nn.convolutions import Same, Strided

PARTS = {"quantizer_options": quantizers.KINDS}  # whose fields `Model` takes


class Model(GridTokenizer):
    """VQGAN without its discriminator, which is the task's.

    Attributes:
      codebook_size: K.
      image_size: H, W, in pixels, one number where they are equal; divisible by the pixels a token stands for,
        2 ** (levels - 1) a side.
      channels: of the pictures, 1 or 3.
      width: of the convolutions at the first level.
      multipliers: of this width, one a level.
      blocks: residual blocks a level; the decoder has one more.
      attention: levels, from 0 on, whose blocks are followed by attention; the innermost blocks always are.
      groups: of group normalisation; a divisor of all widths.
      latent_width: channels that the encoder ends and the decoder begins with.
      code_width: D.
      quantizer: its kind, a key of `quantizers.KINDS`.
      quantizer_options: by kind, its fields that differ from defaults.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebooks stay float32.

    Raises:
      ValueError: sizes that do not fit each other.
    """

    codebook_size: int
    image_size: int | tuple[int, int]
    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (4,)
    groups: int = 32
    latent_width: int = 256
    code_width: int = 256
    quantizer: str = "gradient"
    quantizer_options: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        levels = len(self.multipliers)
        self.rows = self.layout[0].height
        if wrong := [level for level in self.attention if not 0 <= level < levels]:
            raise ValueError(f"attention {wrong[0]} is no level from 0 to {levels - 1}; see multipliers")
        widths = tuple(self.width * multiplier for multiplier in self.multipliers)
        if wrong := [width for width in widths if width % self.groups]:
            raise ValueError(f"groups {self.groups} does not divide width {wrong[0]}; change either")
        shared = {"attention": self.attention, "blocks": self.blocks, "groups": self.groups, "dtype": self.dtype}
        self.encoder = Encoder(self.latent_width, self.width, widths, **shared)
        self.quant_conv = Same(self.code_width, 1, self.dtype)
        self.code = self.make_quantizer(self.codebook_size, self.code_width)
        self.post_quant_conv = Same(self.latent_width, 1, self.dtype)
        self.decoder = Decoder(self.channels, widths, **shared)

    @property
    def downsampling(self) -> int:
        """Pixels a side that a token stands for."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def last_layer(self) -> str:
        """Path of the kernel that makes the pixels."""
        return "decoder/conv_out/kernel"

    def encode(self, images: Float[Array, "B H W C"], *, train: bool = False) -> dict:
        """Features before quantization, `code` [B, N, D]; training is no different."""
        del train
        features = self.quant_conv(self.encoder(2 * images - 1))
        return {"code": rearrange(features, "b h w d -> b (h w) d").astype(jnp.float32)}

    def decode(self, codes: Float[Array, "B N D"]) -> Float[Array, "B H W C"]:
        """Pixels of codes, not clipped."""
        grid = rearrange(codes, "b (h w) d -> b h w d", h=self.rows)
        return (self.decoder(self.post_quant_conv(grid)).astype(jnp.float32) + 1) / 2


class Encoder(nn.Module):
    """Pixels in [-1, 1] -> features: a level of residual blocks, half the side, the next level.

    Attributes:
      features: channels out.
      width: of the first convolution.
      widths: of the levels.
      attention, blocks, groups, dtype: see `Model`.
    """

    features: int
    width: int
    widths: tuple[int, ...]
    attention: tuple[int, ...]
    blocks: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w {self.features}"]:
        """An odd side is halved and rounded down."""
        x = Same(self.width, 3, self.dtype, name="conv_in")(x)
        for level, width in enumerate(self.widths):
            if level:
                x = Strided(x.shape[-1], 3, 2, (0, 1), self.dtype, name=f"downsample_{level - 1}")(x)
            attends = level in self.attention
            x = Level(width, self.blocks, attends, self.groups, self.dtype, name=f"down_{level}")(x)
        x = Middle(self.groups, self.dtype, name="mid")(x)
        x = nn.swish(normalise(self, "norm_out")(x))
        return Same(self.features, 3, self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """Features -> pixels in [-1, 1], not clipped: the encoder's levels in reverse, with nearest upsampling.

    Attributes:
      channels: of the pictures.
      widths: of the levels, the one of the pixels first.
      attention, blocks, groups, dtype: see `Model`.
    """

    channels: int
    widths: tuple[int, ...]
    attention: tuple[int, ...]
    blocks: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w _"]) -> Float[Array, "B H W {self.channels}"]:
        x = Same(self.widths[-1], 3, self.dtype, name="conv_in")(x)
        x = Middle(self.groups, self.dtype, name="mid")(x)
        for level, width in reversed(list(enumerate(self.widths))):
            attends = level in self.attention
            x = Level(width, self.blocks + 1, attends, self.groups, self.dtype, name=f"up_{level}")(x)
            if level:
                x = repeat(x, "b h w c -> b (h y) (w x) c", y=2, x=2)
                x = Same(width, 3, self.dtype, name=f"upsample_{level}")(x)
        x = nn.swish(normalise(self, "norm_out")(x))
        return Same(self.channels, 3, self.dtype, name="conv_out")(x)


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it."""

    width: int
    blocks: int
    attends: bool
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        for number in range(self.blocks):
            x = Block(self.width, self.groups, self.dtype, name=f"block_{number}")(x)
            if self.attends:
                x = Attention(self.groups, self.dtype, name=f"attn_{number}")(x)
        return x


class Middle(nn.Module):
    """Two residual blocks with attention between them, as wide as what comes in."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        x = Block(x.shape[-1], self.groups, self.dtype, name="block_1")(x)
        x = Attention(self.groups, self.dtype, name="attn_1")(x)
        return Block(x.shape[-1], self.groups, self.dtype, name="block_2")(x)


class Block(nn.Module):
    """Normalise, swish, 3 x 3, twice; the shortcut is a 1 x 1 convolution where the number of channels changes."""

    width: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W {self.width}"]:
        y = x
        for number in (1, 2):
            y = nn.swish(normalise(self, f"norm{number}")(y))
            y = Same(self.width, 3, self.dtype, name=f"conv{number}")(y)
        if x.shape[-1] != self.width:
            x = Same(self.width, 1, self.dtype, name="nin_shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Every position attends to all, with one head as wide as the channels; residual."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        width, normed = x.shape[-1], normalise(self, "norm")(x)
        q, k, v = (
            rearrange(Same(width, 1, self.dtype, name=name)(normed), "b h w c -> b (h w) c") for name in "qkv"
        )
        out = attend(q, KeyValue(k, v), jnp.ones((1, 1, 1, k.shape[1]), bool), heads=1)
        return x + Same(width, 1, self.dtype, name="proj_out")(rearrange(out, "b (h w) c -> b h w c", h=x.shape[1]))


def normalise(module: nn.Module, name: str) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018) with the `groups` and in the `dtype` of a module."""
    return nn.GroupNorm(module.groups, epsilon=1e-6, dtype=module.dtype, use_fast_variance=False, name=name)
