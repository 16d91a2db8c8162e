"""VQ-VAE over patches (van den Oord et al. 2017): pictures -> tokens -> pictures.

Three codebooks, from coarse to fine: a colour token says which colour a block of patches has, a strength token
how strong each of its patches is, and a pattern token draws one patch, as strengths along that colour. Colour has
the coarser grid, as in JPEG and video coding, and a codebook of its own: a pattern learned in one colour is known
in all, and no codebook has to hold the product of the two. The coarse tokens come first, so that they lay out the
picture before any detail is drawn.

Decoder blocks start as the identity, so that a k-means codebook is a working tokenizer at step 0 and training
only improves on it. Matrix products throughout: strided convolutions and their gradients are slow in XLA on CPU.

Letters: B batch, H W pixels, P patches, C blocks, N = 2 C + P * depth tokens, K codebook size.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int
from ml_collections import FrozenConfigDict

from t2i_jax.nn import quantizers

BLACK = 1e-6  # length of a mean colour, in pixel units, up to which it has no direction


PARTS = {"quantizer_options": quantizers.KINDS}  # whose fields `Model` takes


class Model(nn.Module):
    """Patch VQ-VAE with colour, strength and pattern apart.

    Attributes:
      codebook_size: K, codes of all three codebooks; ids of colours come first, then strengths, then patterns.
      image_size: H = W, in pixels; divisible by `block`.
      colours, strengths: how many of the K codes are colours and strengths.
      block: side of what shares a colour and a strength token, in pixels; divisible by `patch`.
      patch: side of a patch, in pixels.
      depth: pattern tokens a patch, each refining the ones before it.
      width: hidden width of the blocks.
      decoder_layers: number of residual blocks.
      quantizer: its kind, a key of `quantizers.KINDS`.
      quantizer_options: by kind, its fields that differ from defaults.
      dtype: computation type, "float32" or "bfloat16"; parameters and codebooks stay float32.
    """

    codebook_size: int
    image_size: int
    colours: int = 16
    strengths: int = 112
    block: int = 16
    patch: int = 8
    depth: int = 1
    width: int = 256
    decoder_layers: int = 2
    quantizer: str = "ema"
    quantizer_options: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    def setup(self):
        if self.image_size % self.block:
            raise ValueError(f"image_size {self.image_size} is not divisible by block {self.block}")
        if self.block % self.patch:
            raise ValueError(f"block {self.block} is not divisible by patch {self.patch}")
        if min(self.sizes.values()) < 1:
            raise ValueError(
                f"codebook_size {self.codebook_size}, less colours {self.colours} and strengths {self.strengths},"
                " leaves no pattern"
            )
        if self.sizes["pattern"] % self.depth:
            raise ValueError(f"{self.sizes['pattern']} patterns are not divisible by depth {self.depth}")
        for name, size in self.sizes.items():
            kind, options = self.quantizer, self.quantizer_options.get(self.quantizer, {})
            setattr(self, name, quantizers.make(kind, size, self.widths[name], self.depths[name], **options))
        self.decoder = [PatchBlock(self.width, self.dtype) for _ in range(self.decoder_layers)]

    @property
    def sizes(self) -> dict[str, int]:
        """Codes of each codebook, in the order of their ids and tokens."""
        patterns = self.codebook_size - self.colours - self.strengths
        return {"colour": self.colours, "strength": self.strengths, "pattern": patterns}

    @property
    def widths(self) -> dict[str, int]:
        """Width of each codebook's features."""
        return {"colour": 3, "strength": (self.block // self.patch) ** 2, "pattern": self.patch**2}

    @property
    def depths(self) -> dict[str, int]:
        """Tokens a feature vector, for each codebook."""
        return {"colour": 1, "strength": 1, "pattern": self.depth}

    @property
    def counts(self) -> dict[str, int]:
        """Tokens a picture, for each codebook."""
        blocks, patches = ((self.image_size // side) ** 2 for side in (self.block, self.patch))
        return {"colour": blocks, "strength": blocks, "pattern": patches * self.depth}

    @property
    def num_tokens(self) -> int:
        """N, tokens a picture."""
        return sum(self.counts.values())

    @property
    def places(self) -> Float[np.ndarray, "N F"]:
        """Where each token stands: the patches it speaks of, a vector of length 1, and its codebook, one-hot."""
        side, q = self.image_size // self.patch, self.block // self.patch
        patches = np.eye(side**2)
        blocks = rearrange(patches, "(i y j x) p -> (i j) (y x) p", y=q, x=q, j=side // q).sum(1) / q
        rows = {"colour": blocks, "strength": blocks, "pattern": patches.repeat(self.depth, 0)}
        kinds = np.eye(len(rows)).repeat([len(places) for places in rows.values()], 0)
        return np.concatenate([np.concatenate(list(rows.values())), kinds], 1)

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, "B"], Int[Array, "B N"]]:
        """Reconstruct.

        Args:
          images: pixels in [0, 1].
          train: move the codebooks' averages (collection `codebook` must be mutable).

        Returns:
          Reconstructions (not clipped), what the quantizers ask for, and ids in [0, K).
        """
        features = self.encode(images)
        codes, ids, loss, first = {}, [], 0.0, 0
        for name, size in self.sizes.items():
            codes[name], own, asked = getattr(self, name)(features[name], train=train)
            loss += asked
            ids.append(first + own)
            first += size
        # No decoder reads strengths, so nothing else binds those that are learned to what they stand for.
        loss += jnp.mean((codes["strength"] - jax.lax.stop_gradient(features["strength"])) ** 2, (-2, -1))
        return self.decode(codes["colour"], codes["pattern"]), loss, jnp.concatenate(ids, -1)

    def lookup(self, images: Float[Array, "B H W 3"]) -> dict:
        """Features by codebook, as they are compared with codes."""
        return {name: getattr(self, name).project(features) for name, features in self.encode(images).items()}

    def tables(self) -> dict:
        """Codes by codebook, as features are compared with them; for kinds that have a codebook."""
        return {name: getattr(self, name).table() for name in self.sizes}

    def encode(self, images: Float[Array, "B H W 3"]) -> dict:
        """Features of pixels in [0, 1], before quantization.

        Returns:
          `colour` [B, C, 3], the direction of each block's mean colour, zero where it is black; `pattern`
          [B, P, patch**2], pixels along that direction; `strength` [B, C, patches of a block], the root mean
          square of each pattern.
        """
        p, q = self.patch, self.block // self.patch
        pixels = rearrange(images, "b (i y p) (j x q) c -> b i j (y x) (p q) c", y=q, p=p, x=q, q=p)
        mean = pixels.mean((-3, -2))
        length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
        colour = jnp.where(length > BLACK, mean / jnp.maximum(length, BLACK), 0.0)
        pattern = jnp.einsum("bijnmc,bijc->bijnm", pixels, colour)
        return {
            "colour": rearrange(colour, "b i j c -> b (i j) c"),
            "strength": rearrange(jnp.sqrt(jnp.mean(pattern**2, -1)), "b i j n -> b (i j) n"),
            "pattern": rearrange(pattern, "b i j (y x) m -> b (i y j x) m", y=q),
        }

    def decode(self, colour: Float[Array, "B C 3"], pattern: Float[Array, "B P D"]) -> Float[Array, "B H W 3"]:
        """Pixels of codes, not clipped. Strengths are not among them: they are there for who draws the patterns."""
        side, p, q = self.image_size // self.block, self.patch, self.block // self.patch
        colour = rearrange(colour, "b (i j) c -> b i 1 j 1 1 c", i=side)
        pattern = rearrange(pattern, "b (i y j x) m -> b i y j x m 1", i=side, j=side, y=q, x=q)
        x = rearrange(pattern * colour, "b i y j x m c -> b (i y j x) (m c)")
        for block in self.decoder:
            x = block(x)
        x = rearrange(x, "b (h w) (p q c) -> b (h p) (w q) c", h=side * q, p=p, q=p)
        return x.astype(jnp.float32)

    def codebook(self) -> Float[Array, "K D"]:
        """All codes in one space, the sum of the three codebooks' spaces: zero outside their own."""
        return jax.scipy.linalg.block_diag(*(getattr(self, name).codebook() for name in self.sizes))

    def tokenize(self, images: Float[Array, "B H W 3"]) -> Int[Array, "B N"]:
        """Ids in [0, K) of pixels in [0, 1]: colours, strengths, patterns, each row by row, depths side by side."""
        return self(images)[2]

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W 3"]:
        """Pixels in [0, 1] of ids in [0, K). An id of another codebook stands for black."""
        codes, counts = self.codebook()[ids], self.counts
        colour = codes[:, : counts["colour"], :3]
        pattern = codes[:, -counts["pattern"] :, -(self.patch**2) :]
        pattern = rearrange(pattern, "b (n d) c -> b n d c", d=self.depth).sum(-2)
        return jnp.clip(self.decode(colour, pattern), 0.0, 1.0)


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
