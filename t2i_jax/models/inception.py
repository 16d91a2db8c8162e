"""InceptionV3 as FID uses it (Szegedy et al. 2015, in the variant that TensorFlow released in December 2015).

It differs from torchvision's: average pools leave the border out of their counts, the last block pools by maximum,
and there are 1,008 classes. Names of parameters are torch's, with "_" between a block and its branch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

SIDE = 299  # pixels that it reads
WIDTHS = (64, 192, 768, 2048)  # of its four outputs
CLASSES = 1008
EPSILON = 1e-3


class Unit(nn.Module):
    """Convolution without bias, batch normalisation by the released statistics, ReLU.

    Attributes:
      width: channels out.
      kernel: height and width.
      stride: 1, or 2, which takes no border.
      same: zeros around, so that stride 1 keeps the size.
    """

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*self.kernel, x.shape[-1], self.width))
        scale, variance = (self.param(name, nn.initializers.ones, (self.width,)) for name in ("scale", "variance"))
        bias, mean = (self.param(name, nn.initializers.zeros, (self.width,)) for name in ("bias", "mean"))
        padding = "SAME" if self.same and self.stride == 1 else "VALID"
        numbers = ("NHWC", "HWIO", "NHWC")
        scale = scale * jax.lax.rsqrt(variance + EPSILON)
        x = jax.lax.conv_general_dilated(x, kernel * scale, (self.stride,) * 2, padding, dimension_numbers=numbers)
        return nn.relu(x + (bias - mean * scale))


class Inception(nn.Module):
    """Pixels in [-1, 1], 299 a side -> four outputs averaged over their places, and logits without their bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "B 299 299 3"]) -> tuple[list[Array], Float[Array, "B 1008"]]:
        x = Unit(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = Unit(32, (3, 3), same=False, name="Conv2d_2a_3x3")(x)
        outputs = [_halved(Unit(64, (3, 3), name="Conv2d_2b_3x3")(x))]
        x = Unit(80, name="Conv2d_3b_1x1")(outputs[-1])
        outputs.append(_halved(Unit(192, (3, 3), same=False, name="Conv2d_4a_3x3")(x)))
        x = outputs[-1]
        for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = self._mixed_a(x, f"Mixed_{name}", pooled)
        x = self._mixed_b(x, "Mixed_6a")
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = self._mixed_c(x, f"Mixed_{name}", width)
        outputs.append(x)
        x = self._mixed_d(x, "Mixed_7a")
        x = self._mixed_e(x, "Mixed_7b", _averaged)
        outputs.append(self._mixed_e(x, "Mixed_7c", _largest))
        outputs = [jnp.mean(x, axis=(1, 2)) for x in outputs]
        head = self.param("head", nn.initializers.lecun_normal(), (WIDTHS[-1], CLASSES))
        self.param("head_bias", nn.initializers.zeros, (CLASSES,))  # of the file, and not used
        return outputs, outputs[-1] @ head

    def _chain(self, x, name, *units):
        """Units one after the other; `name` stands before their number where there are several."""
        for number, (width, *rest) in enumerate(units, start=1):
            x = Unit(width, *rest, name=f"{name}_{number}" if len(units) > 1 else name)(x)
        return x

    def _mixed_a(self, x, name, pooled):
        chain = functools.partial(self._chain, x)
        five = chain(f"{name}_branch5x5", (48,), (64, (5, 5)))
        three = chain(f"{name}_branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3)))
        pool = self._chain(_averaged(x), f"{name}_branch_pool", (pooled,))
        return jnp.concatenate([chain(f"{name}_branch1x1", (64,)), five, three, pool], -1)

    def _mixed_b(self, x, name):
        three = self._chain(x, f"{name}_branch3x3", (384, (3, 3), 2))
        double = self._chain(x, f"{name}_branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2))
        return jnp.concatenate([three, double, _halved(x)], -1)

    def _mixed_c(self, x, name, w):
        chain = functools.partial(self._chain, x)
        seven = chain(f"{name}_branch7x7", (w,), (w, (1, 7)), (192, (7, 1)))
        double = chain(f"{name}_branch7x7dbl", (w,), (w, (7, 1)), (w, (1, 7)), (w, (7, 1)), (192, (1, 7)))
        pool = self._chain(_averaged(x), f"{name}_branch_pool", (192,))
        return jnp.concatenate([chain(f"{name}_branch1x1", (192,)), seven, double, pool], -1)

    def _mixed_d(self, x, name):
        three = self._chain(x, f"{name}_branch3x3", (192,), (320, (3, 3), 2))
        seven = self._chain(x, f"{name}_branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2))
        return jnp.concatenate([three, seven, _halved(x)], -1)

    def _mixed_e(self, x, name, pool):
        def forked(x, stem):
            return [Unit(384, kernel, name=f"{stem}{fork}")(x) for fork, kernel in (("a", (1, 3)), ("b", (3, 1)))]

        three = Unit(384, name=f"{name}_branch3x3_1")(x)
        double = self._chain(x, f"{name}_branch3x3dbl", (448,), (384, (3, 3)))
        pooled = self._chain(pool(x), f"{name}_branch_pool", (192,))
        parts = [*forked(three, f"{name}_branch3x3_2"), *forked(double, f"{name}_branch3x3dbl_3"), pooled]
        return jnp.concatenate([self._chain(x, f"{name}_branch1x1", (320,)), *parts], -1)


def outputs(weights: dict, images: Float[Array, "B H W C"]) -> tuple[list[Array], Float[Array, "B 1008"]]:
    """See `Inception`; of pixels in [0, 1], scaled bilinearly without antialiasing, as pytorch-fid does."""
    colours = jnp.broadcast_to(images, (*images.shape[:-1], 3))
    scaled = jax.image.resize(colours, (len(images), SIDE, SIDE, 3), "bilinear", antialias=False)
    return Inception().apply({"params": weights}, 2 * scaled - 1)


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by name, "/" between its parts."""
    found = jax.eval_shape(Inception().init, jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32))
    return {name: x.shape for name, x in flatten_dict(found["params"], sep="/").items()}


def _averaged(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _largest(x):
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def _halved(x):
    return nn.max_pool(x, (3, 3), (2, 2))
