"""VQ-VAE over patches (van den Oord et al. 2017): pictures -> tokens -> pictures.

A patch encoder and decoder of residual blocks around the identity: at step 0 the encoder hands out the raw
patches and the decoder puts codes back as patches, so that a k-means codebook starts as a working tokenizer
and training only ever improves on it. Matrix products throughout: strided convolutions and their gradients
are slow in XLA on CPU.

Letters: B batch, H W pixels, P patches, D = 3 * patch**2, N = P * depth tokens, K codebook size.
"""

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Int

from t2i_jax.models.quantizers import EMAQuantizer


class Model(nn.Module):
    """Residual patch VQ-VAE.

    Attributes:
      codebook_size: K.
      image_size: H = W, in pixels; divisible by `patch`.
      patch: side of a patch, in pixels.
      depth: tokens a patch, each refining the ones before it.
      width: hidden width of the blocks.
      encoder_layers, decoder_layers: number of residual blocks.
      decay: EMA decay of the codebook.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebook stay float32.
    """

    codebook_size: int
    image_size: int
    patch: int = 8
    depth: int = 1
    width: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 2
    decay: float = 0.99
    dtype: str = "float32"

    def setup(self):
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is not divisible by patch {self.patch}")
        if self.codebook_size % self.depth:
            raise ValueError(f"codebook_size {self.codebook_size} is not divisible by depth {self.depth}")
        self.encoder = [PatchBlock(self.width, self.dtype) for _ in range(self.encoder_layers)]
        self.decoder = [PatchBlock(self.width, self.dtype) for _ in range(self.decoder_layers)]
        self.quantizer = EMAQuantizer(self.codebook_size, self.depth, self.decay)

    @property
    def num_tokens(self) -> int:
        """N, tokens a picture."""
        return (self.image_size // self.patch) ** 2 * self.depth

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, "B P D"], Float[Array, "B P D"], Int[Array, "B N"]]:
        """Reconstruct.

        Args:
          images: pixels in [0, 1].
          train: move the codebook's averages (collection `codebook` must be mutable).

        Returns:
          Reconstructions (not clipped), encoder features, their straight-through codes, and ids in [0, K).
        """
        features = self.encode(images)
        codes, ids = self.quantizer(features, update=train)
        return self.decode(codes), features, codes, ids

    def encode(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B P D"]:
        """Features of pixels in [0, 1], before quantization."""
        p = self.patch
        x = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=p, q=p)
        for block in self.encoder:
            x = block(x)
        return x.astype(jnp.float32)

    def decode(self, codes: Float[Array, "B P D"]) -> Float[Array, "B H W 3"]:
        """Pixels of codes, not clipped."""
        p, side = self.patch, self.image_size // self.patch
        x = codes
        for block in self.decoder:
            x = block(x)
        x = rearrange(x, "b (h w) (p q c) -> b (h p) (w q) c", h=side, w=side, p=p, q=p)
        return x.astype(jnp.float32)

    def tokenize(self, images: Float[Array, "B H W 3"]) -> Int[Array, "B N"]:
        """Ids in [0, K) of pixels in [0, 1]: patches row by row, a patch's depths side by side."""
        return self.quantizer(self.encode(images))[1]

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W 3"]:
        """Pixels in [0, 1] of ids in [0, K)."""
        return jnp.clip(self.decode(self.quantizer.lookup(ids)), 0.0, 1.0)


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
