"""PatchGAN discriminator (Isola et al. 2017, section 3.2 and appendix 6.1.2): pictures -> a grid of logits.

Group normalisation stands where theirs and taming's has batch normalisation. With that a logit would depend on the
other pictures of the batch, real and generated ones would be normalised apart, small batches, micro-batches and
devices would each see another discriminator, and its averages would have to be kept. With groups a logit depends on
its own picture alone.
"""

from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.nn.convolutions import Strided

GROUP = 16  # channels that are normalised together
SLOPE = 0.2  # of leaky ReLU below 0


class Discriminator(nn.Module):
    """Logits of overlapping patches, above 0 for real ones; of 70 x 70 pixels with 3 layers, of 34 x 34 with 2.

    Attributes:
      width: channels of the first convolution; doubled by each layer, up to eight times.
      layers: convolutions of stride 2; a side becomes side / 2 ** layers, less 2.
    """

    width: int = 64
    layers: int = 3

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
        """Of pixels in [0, 1], or around it: reconstructions are not clipped."""
        x = 2 * images - 1
        for number in range(self.layers + 1):
            stride = 2 if number < self.layers else 1
            x = Strided(self.width * 2 ** min(number, 3), 4, stride, (1, 1), name=f"conv_{number}")(x)
            if number:
                group = min(GROUP, x.shape[-1])
                x = nn.GroupNorm(None, group_size=group, use_fast_variance=False, name=f"norm_{number}")(x)
            x = nn.leaky_relu(x, SLOPE)
        return Strided(1, 4, 1, (1, 1), name="logits")(x)[..., 0]


def smallest_side(layers: int) -> int:
    """Pixels a side that a picture must have for one logit."""
    return 3 * 2**layers
