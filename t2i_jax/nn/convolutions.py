"""Convolutions: matrix products over patches on CPU, where XLA's own and above all their gradients are slow.

Elsewhere they are XLA's, which need no room for patches. The parameters are the same. Letters: B batch, H W pixels,
C channels in, D channels out.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

FEW = 256  # inputs of an output up to which patches are gathered first: more would fill the memory


def by_patches() -> bool:
    """Whether convolutions are traced as products over patches."""
    return jax.default_backend() == "cpu"


def convolve(x, kernel, *, stride: int = 1, padding: tuple[int, int] = (1, 1), dilation: int = 1):
    """XLA's convolution, NHWC and HWIO; zeros before and after the inputs, and `dilation - 1` between them."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [padding] * 2,
        lhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def weights(module: nn.Module, *shape: int) -> tuple[Array, Array]:
    """Kernel of this shape and bias of its last axis, parameters of a module, in its `dtype`."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = module.param("bias", nn.initializers.zeros_init(), shape[-1:])
    return jnp.asarray(kernel, module.dtype), jnp.asarray(bias, module.dtype)


class Weights(nn.Module):
    """Kernel and bias, as a dense layer has them; see `weights`."""

    shape: tuple[int, ...]
    dtype: str

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        return weights(self, *self.shape)


class Conv(nn.Module):
    """Convolution, 3 x 3 kernel, one pixel of zeros around: the same height and width."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        h, w, channels = x.shape[1:]
        kernel, bias = Weights((9 * channels, self.width), self.dtype, name="patches")()
        x = x.astype(self.dtype)
        if not by_patches():
            return convolve(x, rearrange(kernel, "(i j c) d -> i j c d", i=3, j=3)) + bias
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(patches, axis=-1) @ kernel + bias


class Same(nn.Module):
    """Convolution with an odd kernel, zeros around: the same height and width.

    Attributes:
      features: D.
      side: of the kernel.
      dtype: computation type.
    """

    features: int
    side: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        return _by_taps(self, x, 1, (self.side // 2, self.side // 2))


class Strided(nn.Module):
    """Convolution with any kernel, stride and border: H x W -> (H + border - side) // stride + 1, and so for W.

    Attributes:
      features: D.
      side: of the kernel.
      stride: pixels from one output to the next.
      padding: rows and columns of zeros before and after.
      dtype: computation type.
    """

    features: int
    side: int
    stride: int
    padding: tuple[int, int]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return _by_taps(self, x, self.stride, self.padding)


def _by_taps(module, x, stride, padding):
    """On CPU a sum of matrix products, one a tap of the kernel; of few channels one product."""
    channels, side = x.shape[-1], module.side
    x, (kernel, bias) = x.astype(module.dtype), weights(module, side, side, channels, module.features)
    if not by_patches():
        return convolve(x, kernel, stride=stride, padding=padding) + bias
    padded = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    h, w = ((length - side) // stride * stride + 1 for length in padded.shape[1:3])
    taps = [padded[:, i : i + h : stride, j : j + w : stride] for i in range(side) for j in range(side)]
    kernel = rearrange(kernel, "i j c d -> (i j) c d")
    if channels * len(taps) <= FEW:
        return jnp.concatenate(taps, axis=-1) @ rearrange(kernel, "n c d -> (n c) d") + bias
    product = partial(jnp.matmul, preferred_element_type=jnp.float32)
    summed = sum(product(tap, weights) for tap, weights in zip(taps, kernel, strict=True))
    return summed.astype(module.dtype) + bias


class Down(nn.Module):
    """Convolution, 4 x 4 kernel, stride 2, one pixel of zeros around: H x W -> H/2 x W/2."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        x, (kernel, bias) = x.astype(self.dtype), weights(self, 4, 4, x.shape[-1], self.width)
        if not by_patches():
            return convolve(x, kernel, stride=2) + bias
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=2, q=2)
        h, w = x.shape[1] - 1, x.shape[2] - 1
        patches = [x[:, i : i + h, j : j + w] for i in range(2) for j in range(2)]
        kernel = rearrange(kernel, "(i p) (j q) c d -> (i j p q c) d", p=2, q=2)
        return jnp.concatenate(patches, axis=-1) @ kernel + bias


class Up(nn.Module):
    """Transposed convolution, 4 x 4 kernel, stride 2, one pixel cut off around: H x W -> 2H x 2W."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """By patches: one matrix product to patches, which overlap and are summed."""
        x, (kernel, bias) = x.astype(self.dtype), weights(self, 4, 4, x.shape[-1], self.width)
        if not by_patches():
            return convolve(x, kernel[::-1, ::-1], padding=(2, 2), dilation=2) + bias
        patches = x @ rearrange(kernel, "(i p) (j q) c d -> c (i j p q d)", p=2, q=2)
        patches = rearrange(patches, "b h w (i j n) -> i j b h w n", i=2, j=2)
        x = sum(
            jnp.pad(patches[i, j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0))) for i in range(2) for j in range(2)
        )
        x = rearrange(x, "b h w (p q d) -> b (h p) (w q) d", p=2, q=2)
        return x[:, 1:-1, 1:-1] + bias
