"""ResNet-50 and ResNet-101 without their classifier (He et al. 2015, table 1), as encoders of pictures.

Version 1.5: a block that halves the resolution does so in its 3x3 convolution, not in the 1x1 before it (Goyal et
al. 2017, section 5.1). `convert/resnet.py` reads released weights.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels: red, green, blue


def normalise(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Pixels in [0, 1] -> normalised by ImageNet's mean and standard deviation, as released weights read them."""
    return (images - jnp.array(MEAN)) / jnp.array(DEVIATION)


class ResNet(nn.Module):
    """Normalised pictures -> a feature map.

    Batch statistics lie in the collection `batch_stats`. While training they move by a tenth a step, as torch's do,
    but towards the batch's own variance; torch scales it by n / (n - 1) first.

    Attributes:
      depth: 50 or 101; how many blocks a stage has.
      stage: how many of the four stages are run, 1 to 4; those above have no parameters.
      freeze_stats: normalise by the running statistics while training too, and leave them as they are. For
        released weights and small batches; statistics of a fresh model say nothing and must move.
      width: channels of the stem; stage i of 1, 2, ... has 2**(i + 1) times as many. Released models have 64.
      stage_layers: blocks of each stage; those of `depth` when None.
      dtype: of the computation; parameters and statistics are float32.
    """

    depth: int = 50
    stage: int = 4
    freeze_stats: bool = False
    width: int = 64
    stage_layers: tuple[int, ...] | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], *, train: bool = False) -> Float[Array, "B h w C"]:
        """The last stage's output, float of `dtype` and at least 0.

        Args:
          images: as `normalise` returns them.
          train: normalise by the batch's statistics and move the running ones (`batch_stats` must be mutable),
            unless `freeze_stats`.

        Returns:
          h, w = H, W divided by 2**(stage + 1), rounded up; C = width * 2**(stage + 1).

        Raises:
          ValueError: another `depth`, or a `stage` there is none of.
        """
        if self.stage_layers is None and self.depth not in LAYERS:
            raise ValueError(f"depth {self.depth} is unknown; choose {' or '.join(map(str, LAYERS))}")
        layers = self.stage_layers or LAYERS[self.depth]
        if not 1 <= self.stage <= len(layers):
            raise ValueError(f"stage {self.stage} is not in 1 to {len(layers)}, the stages there are")
        running = self.freeze_stats or not train
        x = nn.relu(ConvNorm(self.width, 7, 2, self.dtype, name="stem")(images, running))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, count in enumerate(layers[: self.stage]):
            for j in range(count):
                stride = 2 if i and not j else 1
                x = Bottleneck(self.width * 2**i, stride, self.dtype, name=f"stage{i}_layer{j}")(x, running)
        return x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut (He et al. 2015, figure 5 right).

    Out come 4 * `width` channels. The shortcut is a projection where the shape changes (option B).
    """

    width: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], running: bool) -> Float[Array, "B h w D"]:
        """`running`: normalise by the running statistics."""

        def conv(features, kernel, stride, name):
            return ConvNorm(features, kernel, stride, self.dtype, name=name)

        y = nn.relu(conv(self.width, 1, 1, "reduce")(x, running))
        y = nn.relu(conv(self.width, 3, self.stride, "spatial")(y, running))
        y = conv(4 * self.width, 1, 1, "expand")(y, running)
        if x.shape != y.shape:
            x = conv(4 * self.width, 1, self.stride, "shortcut")(x, running)
        return nn.relu(x + y)


class ConvNorm(nn.Module):
    """A convolution, padded by half its kernel on all sides ("SAME" pads strides unevenly), and batch norm."""

    features: int
    kernel: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], running: bool) -> Float[Array, "B h w D"]:
        """`running`: normalise by the running statistics."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=self.kernel // 2,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),  # He et al. 2015b, section 2.2
            dtype=self.dtype,
            name="conv",
        )(x)
        # The two-pass variance: the fast one loses digits where the mean is large.
        norm = nn.BatchNorm(
            running, momentum=0.9, epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name="norm"
        )
        return norm(x)
