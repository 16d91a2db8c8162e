"""Discrete VAE (Ramesh et al. 2021, section 2.1 and appendix A.2): pictures -> tokens -> pictures.

A convolutional encoder gives logits over the codebook at every position of a grid, a decoder turns one code a
position into pixels. In training a Gumbel-softmax stands for the choice, so that gradients flow through it.

Letters: B batch, H W pixels, h w token grid, N = h w, K codebook size, D width of a code.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from t2i_jax.models.image_tokenizer import ImageTokenizer
from t2i_jax.nn.convolutions import Same
from t2i_jax.nn.layout import Grid, positions

EDGE = 0.1  # pixels are squeezed into [EDGE, 1 - EDGE]: the logit-Laplace density has no mass at 0 and 1


def map_pixels(images: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Pixels in [0, 1] -> what the model sees, in [0.1, 0.9] (Ramesh et al. 2021, appendix A.3)."""
    return (1 - 2 * EDGE) * images + EDGE


def unmap_pixels(images: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The inverse of `map_pixels`, clipped to [0, 1]."""
    return jnp.clip((images - EDGE) / (1 - 2 * EDGE), 0.0, 1.0)


class Model(ImageTokenizer):
    """dVAE; the defaults are the released one: 32 x 32 tokens of 8,192 for 256 x 256 pixels.

    Attributes:
      codebook_size: K.
      image_size: H, W, in pixels, one number where they are equal; divisible by 2 ** (groups - 1).
      width: channels of the blocks at full resolution; doubled with every group away from it.
      code_width: D, channels that the decoder makes of a code.
      groups: resolutions; a token stands for 2 ** (groups - 1) pixels a side.
      blocks: residual blocks a group.
      dtype: computation type of all but logits and codes, "float32" or "bfloat16"; parameters stay float32.
    """

    fits_any_size: ClassVar[bool] = True

    codebook_size: int = 8192
    image_size: int | tuple[int, int] = 256
    width: int = 256
    code_width: int = 128
    groups: int = 4
    blocks: int = 2
    dtype: str = "float32"

    def setup(self):
        self.rows = self.layout[0].height
        if self.width % 4:  # a block's hidden width is a quarter of its own
            raise ValueError(f"width {self.width} is not divisible by 4; give a multiple of 4")
        parts = {"width": self.width, "groups": self.groups, "blocks": self.blocks, "dtype": self.dtype}
        self.encoder = Encoder(self.codebook_size, **parts)
        # As small as OpenAI's: with codes of standard deviation 1 the relaxation's noise drowns every picture, and
        # the encoder silences it by choosing one code for all.
        small = nn.initializers.normal(self.codebook_size**-0.5)
        self.codes = self.param("codes", small, (self.codebook_size, self.code_width))
        self.codes_bias = self.param("codes_bias", nn.initializers.zeros_init(), (self.code_width,))
        self.decoder = Decoder(**parts)

    @property
    def patch(self) -> int:
        """Pixels a side that a token stands for."""
        return 2 ** (self.groups - 1)

    @property
    def layout(self) -> tuple[Grid, ...]:
        """One grid of h x w tokens.

        Raises:
          ValueError: `patch` does not divide a side.
        """
        return (Grid("code", *positions(self.image_size, self.patch), 1, 0, self.codebook_size),)

    def __call__(
        self,
        images: Float[Array, "B H W 3"],
        *,
        temperature: Float[Array, ""] | float = 1.0,
        noise: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B h w K"], Float[Array, "B h w K"], Float[Array, "B H W 6"]]:
        """Encode, relax, decode.

        Args:
          images: pixels in [0, 1].
          temperature: tau of the relaxation, > 0 (Jang et al. 2016, eq. 2).
          noise: random key of the Gumbel noise; None takes the likeliest code instead.

        Returns:
          Logits, codes (each position sums to 1), and the parameters of the output distribution: location and log
          scale of a logit-Laplace distribution over mapped pixels, three channels each.
        """
        logits = self.encode(images)
        if noise is None:
            codes = jax.nn.one_hot(logits.argmax(-1), self.codebook_size)
        else:
            codes = jax.nn.softmax((logits + jax.random.gumbel(noise, logits.shape)) / temperature)
        return logits, codes, self.decode(codes)

    def encode(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w K"]:
        """Logits over the codebook of pixels in [0, 1]; H and W are divisible by `patch`."""
        return self.encoder(map_pixels(images))

    def decode(self, codes: Float[Array, "B h w K"]) -> Float[Array, "B H W 6"]:
        """Parameters of the output distribution of codes, hard (one-hot) or soft."""
        return self.decoder(codes @ self.codes + self.codes_bias)

    def codebook(self) -> Float[Array, "K D"]:
        """What the decoder's first layer makes of each code, its bias left out."""
        return self.codes

    def tokenize(self, images: Float[Array, "B H W 3"]) -> Int[Array, "B N"]:
        """Ids in [0, K) of pixels in [0, 1], row by row: the likeliest code at each position."""
        return rearrange(self.encode(images).argmax(-1), "b h w -> b (h w)")

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W 3"]:
        """Pixels in [0, 1] of ids in [0, K): the location of the output distribution."""
        grid = rearrange(ids, "b (h w) -> b h w", h=self.rows)
        return pixels_of(self.decoder(self.codes[grid] + self.codes_bias))


def pixels_of(outputs: Float[Array, "B H W 6"]) -> Float[Array, "B H W 3"]:
    """Pixels in [0, 1] at the location of the output distribution."""
    return unmap_pixels(nn.sigmoid(outputs[..., :3]))


class Encoder(nn.Module):
    """Mapped pixels -> logits: groups of blocks with a max pool between two; see `Model` for the fields."""

    codebook_size: int
    width: int
    groups: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w K"]:
        """Logits are float32."""
        block = partial(Block, kernels=(3, 3, 3, 1), gain=(self.groups * self.blocks) ** -2, dtype=self.dtype)
        x = Same(self.width, 7, self.dtype, name="input")(x)
        for group in range(self.groups):
            for number in range(self.blocks):
                x = block(2**group * self.width, name=f"group_{group + 1}_block_{number + 1}")(x)
            if group < self.groups - 1:
                # Not nn.max_pool: the gradient of that is slow in XLA on CPU. Not jnp.max: that divides by how many
                # values equal the maximum, none where a compiler computes them twice and differently.
                x = jnp.maximum(x[:, ::2], x[:, 1::2])
                x = jnp.maximum(x[:, :, ::2], x[:, :, 1::2])
        x = nn.relu(x)
        self.sow("intermediates", "features", x)  # for a warm start by k-means
        return Same(self.codebook_size, 1, "float32", name="output")(x)


class Decoder(nn.Module):
    """Codes -> parameters of the output distribution: the encoder's groups in reverse, with nearest upsampling."""

    width: int
    groups: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B H W 6"]:
        """Outputs are float32."""
        block = partial(Block, kernels=(1, 3, 3, 3), gain=(self.groups * self.blocks) ** -2, dtype=self.dtype)
        for group in range(self.groups):
            for number in range(self.blocks):
                width = 2 ** (self.groups - 1 - group) * self.width
                x = block(width, name=f"group_{group + 1}_block_{number + 1}")(x)
            if group < self.groups - 1:
                x = repeat(x, "b h w c -> b (h y) (w x) c", y=2, x=2)
        return Same(6, 1, self.dtype, name="output")(nn.relu(x)).astype(jnp.float32)


class Block(nn.Module):
    """Residual block of four convolutions, the hidden ones a quarter as wide.

    Attributes:
      features: channels out.
      kernels: sides of the four kernels.
      gain: weight of the residual branch.
      dtype: computation type.
    """

    features: int
    kernels: tuple[int, int, int, int]
    gain: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w _"]) -> Float[Array, "B h w {self.features}"]:
        """The shortcut is a 1 x 1 convolution where the number of channels changes."""
        shortcut = x if x.shape[-1] == self.features else Same(self.features, 1, self.dtype, name="shortcut")(x)
        widths = (*[self.features // 4] * 3, self.features)
        for number, (width, kernel) in enumerate(zip(widths, self.kernels, strict=True), start=1):
            x = Same(width, kernel, self.dtype, name=f"conv_{number}")(nn.relu(x))
        return shortcut + self.gain * x
