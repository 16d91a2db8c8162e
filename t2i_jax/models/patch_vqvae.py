"""VQ-VAE over patches (van den Oord et al. 2017), gain-shape (Sabin & Gray 1984): images -> tokens -> images.

Three codebooks, from coarse to fine: a hue token says which colour a block of patches has, a gain token how strong
each of its patches is, and a shape token describes one patch, as pixels along that colour. Hue has the coarser
grid, as in JPEG and video coding, and a codebook of its own: a shape learned in one hue is known in all, and no
codebook has to hold the product of the two. The coarse tokens come first, so that they lay out the picture before
any detail is sampled.

Decoder blocks start as the identity, so that a k-means codebook is a working tokenizer at step 0 and training
only improves on it. Matrix products throughout: strided convolutions and their gradients are slow in XLA on CPU.

Letters: B batch, H W pixels, P patches, C blocks, N = 2 C + P * residual_depth tokens, K codebook size.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int
from ml_collections import FrozenConfigDict

from t2i_jax.models.image_tokenizer import VQTokenizer
from t2i_jax.nn import quantizers
from t2i_jax.nn.layout import Grid, positions

BLACK = 1e-6  # length of a mean colour, in pixel units, up to which it has no hue


PARTS = {"quantizer_options": quantizers.KINDS}  # whose fields `Model` takes


class Model(VQTokenizer):
    """Patch VQ-VAE with hue, gain and shape apart.

    Attributes:
      codebook_size: K, codes of all three codebooks; ids of hues come first, then gains, then shapes.
      image_size: H, W, in pixels, one number where they are equal; divisible by `block`. The decoder mixes over
        all patches: it has parameters of its own for each size.
      hues, gains: how many of the K codes are hues and gains.
      block: side of what shares a hue and a gain token, in pixels; divisible by `patch`.
      patch: side of a patch, in pixels.
      residual_depth: shape tokens a patch, each refining the ones before it.
      width: hidden width of the blocks.
      decoder_layers: number of residual blocks.
      quantizer: its kind, a key of `quantizers.KINDS`.
      quantizer_options: by kind, its fields that differ from defaults.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebooks stay float32.
    """

    codebook_size: int
    image_size: int | tuple[int, int]
    hues: int = 16
    gains: int = 112
    block: int = 16
    patch: int = 8
    residual_depth: int = 1
    width: int = 256
    decoder_layers: int = 2
    quantizer: str = "ema"
    quantizer_options: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        if self.block % self.patch:
            raise ValueError(f"block {self.block} is not divisible by patch {self.patch}; change either")
        if min(grid.size for grid in self.layout) < 1:
            raise ValueError(
                f"codebook_size {self.codebook_size}, less hues {self.hues} and gains {self.gains}, leaves no shape"
                " or no hue or gain; give each of the three at least one"
            )
        shapes = self.layout[-1].size
        if shapes % self.residual_depth:
            raise ValueError(
                f"{shapes} shapes are not divisible by residual_depth {self.residual_depth}; change it, or"
                " codebook_size"
            )
        for name, _, _, depth, _, size in self.layout:
            setattr(self, name, self.make_quantizer(size, self.widths[name], depth))
        self.decoder = [PatchBlock(self.width, self.dtype) for _ in range(self.decoder_layers)]

    @property
    def layout(self) -> tuple[Grid, ...]:
        """Hues and gains of blocks, shapes of patches.

        Raises:
          ValueError: `block` does not divide a side.
        """
        blocks = positions(self.image_size, self.block)
        patches = (blocks[0] * (self.block // self.patch), blocks[1] * (self.block // self.patch))
        first = self.hues + self.gains
        return (
            Grid("hue", *blocks, 1, 0, self.hues),
            Grid("gain", *blocks, 1, self.hues, self.gains),
            Grid("shape", *patches, self.residual_depth, first, self.codebook_size - first),
        )

    @property
    def widths(self) -> dict[str, int]:
        """Width of each codebook's features."""
        return {"hue": 3, "gain": (self.block // self.patch) ** 2, "shape": self.patch**2}

    @property
    def last_layer(self) -> str:
        """Path of the kernel that is nearest to the pixels."""
        return f"decoder_{self.decoder_layers - 1}/channel_out/kernel"

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, "B"], Int[Array, "B N"]]:
        """Reconstruct.

        Args:
          images: pixels in [0, 1].
          train: move the codebooks' EMA statistics (collection `codebook` must be mutable).

        Returns:
          Reconstructions (not clipped), the sum of the quantizers' losses, and ids in [0, K).
        """
        features = self.encode(images)
        codes, ids, loss = {}, [], 0.0
        for grid in self.layout:
            codes[grid.name], own_ids, own_loss = getattr(self, grid.name)(features[grid.name], train=train)
            loss += own_loss
            ids.append(grid.first_id + own_ids)
        # The decoder reads no gains, so nothing else binds learned ones to what they stand for.
        loss += jnp.mean((codes["gain"] - jax.lax.stop_gradient(features["gain"])) ** 2, (-2, -1))
        return self.decode(codes["hue"], codes["shape"]), loss, jnp.concatenate(ids, -1)

    def encode(self, images: Float[Array, "B H W 3"]) -> dict:
        """Features of pixels in [0, 1], before quantization.

        Returns:
          `hue` [B, C, 3], the direction of each block's mean colour, zero where it is black; `shape`
          [B, P, patch**2], pixels along that direction; `gain` [B, C, patches of a block], the root mean square of
          each shape.
        """
        p, q = self.patch, self.block // self.patch
        pixels = rearrange(images, "b (i y p) (j x q) c -> b i j (y x) (p q) c", y=q, p=p, x=q, q=p)
        mean = pixels.mean((-3, -2))
        length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
        hue = jnp.where(length > BLACK, mean / jnp.maximum(length, BLACK), 0.0)
        shape = jnp.einsum("bijnmc,bijc->bijnm", pixels, hue)
        return {
            "hue": rearrange(hue, "b i j c -> b (i j) c"),
            "gain": rearrange(jnp.sqrt(jnp.mean(shape**2, -1)), "b i j n -> b (i j) n"),
            "shape": rearrange(shape, "b i j (y x) m -> b (i y j x) m", y=q),
        }

    def decode(self, hue: Float[Array, "B C 3"], shape: Float[Array, "B P D"]) -> Float[Array, "B H W 3"]:
        """Pixels of codes, not clipped. Gains are not read: they guide whoever samples the shapes."""
        _, i, j, *_ = self.layout[0]
        p, q = self.patch, self.block // self.patch
        hue = rearrange(hue, "b (i j) c -> b i 1 j 1 1 c", i=i)
        shape = rearrange(shape, "b (i y j x) m -> b i y j x m 1", i=i, j=j, y=q, x=q)
        x = rearrange(shape * hue, "b i y j x m c -> b (i y j x) (m c)")
        for block in self.decoder:
            x = block(x)
        x = rearrange(x, "b (h w) (p q c) -> b (h p) (w q) c", h=i * q, p=p, q=p)
        return x.astype(jnp.float32)

    def codebook(self) -> Float[Array, "K D"]:
        """All codes in one space, the sum of the three codebooks' spaces: zero outside their own."""
        return jax.scipy.linalg.block_diag(*(getattr(self, grid.name).codebook() for grid in self.layout))

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W 3"]:
        """Pixels in [0, 1] of ids in [0, K). An id of another codebook stands for black."""
        hues, _, shapes = self.layout
        codes = self.codebook()[ids]
        hue = codes[:, : hues.num_tokens, :3]
        shape = codes[:, -shapes.num_tokens :, -(self.patch**2) :]
        shape = rearrange(shape, "b (n d) c -> b n d c", d=self.residual_depth).sum(-2)
        return jnp.clip(self.decode(hue, shape), 0.0, 1.0)


class PatchBlock(nn.Module):
    """Residual block that mixes first over tokens, then over channels (Tolstikhin et al. 2021, eq. 1).

    Both branches end in a zero kernel: a new block is the identity.
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """Same shape in and out."""
        tokens, channels = x.shape[-2:]

        def dense(features, name, kernel_init):
            return nn.Dense(features, dtype=self.dtype, name=name, kernel_init=kernel_init)

        zeros, lecun = nn.initializers.zeros_init(), nn.initializers.lecun_normal()
        y = nn.LayerNorm(dtype=self.dtype, name="token_norm")(x).swapaxes(-1, -2)
        y = dense(tokens, "token_out", zeros)(nn.gelu(dense(4 * tokens, "token_in", lecun)(y)))
        x = x + y.swapaxes(-1, -2)
        y = nn.LayerNorm(dtype=self.dtype, name="channel_norm")(x)
        return x + dense(channels, "channel_out", zeros)(nn.gelu(dense(self.width, "channel_in", lecun)(y)))
