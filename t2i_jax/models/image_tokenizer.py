"""What image tokenizers answer alike, from their `layout`, `encode` and quantizers."""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from t2i_jax.nn import layout, quantizers
from t2i_jax.nn.layout import Grid


class ImageTokenizer(nn.Module):
    """A model whose `layout` says which tokens it has.

    Attributes:
      fits_any_size: it is fully convolutional: its parameters are the same for every `image_size`.
    """

    fits_any_size: ClassVar[bool] = False

    @property
    def num_tokens(self) -> int:
        """N, tokens an image."""
        return layout.num_tokens(self.layout)


class VQTokenizer(ImageTokenizer):
    """One with a quantizer for each grid, under the grid's name, and `encode`: features by that name."""

    def make_quantizer(self, size: int, width: int, residual_depth: int = 1) -> nn.Module:
        """One of the kind `quantizer`; see `quantizers.make`."""
        options = self.quantizer_options.get(self.quantizer, {})
        return quantizers.make(self.quantizer, size, width, residual_depth, **options)

    def code_space_features(self, images: Float[Array, "B H W C"]) -> dict:
        """Features by codebook, as they are compared with codes."""
        return {name: getattr(self, name).to_code_space(x) for name, x in self.encode(images).items()}

    def code_space_codebooks(self) -> dict:
        """Codes by codebook, as features are compared with them; for kinds that have a codebook."""
        return {grid.name: getattr(self, grid.name).code_space_codebook() for grid in self.layout}

    def tokenize(self, images: Float[Array, "B H W C"]) -> Int[Array, "B N"]:
        """Ids in [0, K) of pixels in [0, 1]: grid after grid, row by row, residual codes side by side."""
        return self(images)[2]


class GridTokenizer(VQTokenizer):
    """A convolutional tokenizer with a single grid, `downsampling` pixels a token along each side, a quantizer
    `code`, and `decode`.
    """

    fits_any_size: ClassVar[bool] = True

    @property
    def layout(self) -> tuple[Grid, ...]:
        """One grid of h x w tokens.

        Raises:
          ValueError: `downsampling` does not divide a side.
        """
        return (Grid("code", *layout.positions(self.image_size, self.downsampling), 1, 0, self.codebook_size),)

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B"], Int[Array, "B N"]]:
        """Reconstruct.

        Args:
          images: pixels in [0, 1].
          train: move the codebook's EMA statistics and batch statistics (their collections must be mutable); Gumbel
            noise comes from the random stream "noise".

        Returns:
          Reconstructions (not clipped), the quantizer's loss, and ids in [0, K), row by row.
        """
        codes, ids, loss = self.code(self.encode(images, train=train)["code"], train=train)
        return self.decode(codes), loss, ids

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features."""
        return self.code.codebook()

    def detokenize(self, ids: Int[Array, "B N"]) -> Float[Array, "B H W C"]:
        """Pixels in [0, 1] of ids in [0, K)."""
        return jnp.clip(self.decode(self.codebook()[ids]), 0.0, 1.0)
