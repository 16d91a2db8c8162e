"""What image tokenizers answer alike, from their `layout`, `encode` and quantizers."""

from flax import linen as nn
from jaxtyping import Array, Float, Int

from t2i_jax.nn import layout, quantizers


class ImageTokenizer(nn.Module):
    """A model whose `layout` says which tokens it has."""

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
