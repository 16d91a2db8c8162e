"""Dense parts of a transformer: how kernels start, the MLP, the head whose logits are float32."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from t2i_jax.nn.products import Int8Kernel, factors_type, float32_product, int8_product

ACTIVATIONS: dict[str, Callable] = {
    "relu": nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # Hendrycks & Gimpel 2016, the exact Gaussian integral
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # section 2, by tanh
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # section 2, by a sigmoid
}


def normal_init(width: int, scale: float = 1.0) -> Callable:
    """Normal with standard deviation 0.02 at width 768 (BERT, GPT-2), proportional to 1 / sqrt(width) elsewhere.

    So attention scores start equally large at every width (Yang et al. 2022, "Tensor Programs V", table 3). With a
    plain 0.02, narrow models bind words to positions late; `docs/recipe-digits.md` has the figures.
    """
    return nn.initializers.normal(scale * 0.02 * (768 / width) ** 0.5)


class Dense(nn.Module):
    """A dense layer with a bias.

    The factors of its product may have fewer bits than its `dtype`: by `products.factors_type`, or where its kernel
    was given to it as bfloat16 or as an `Int8Kernel`.

    Attributes:
      features: K.
      kernel_init: how its kernel starts.
      dtype: of the computation and of the outputs.
    """

    features: int
    kernel_init: Callable
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        y = self.product(x.astype(self.dtype)).astype(self.dtype)
        return y + self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)

    @nn.nowrap
    def product(self, x: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        """What the kernel makes of `x`, in float32 or `dtype`."""
        if isinstance(kernel := self.variables.get("params", {}).get("kernel"), Int8Kernel):
            return int8_product(x, kernel)
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        if self.dtype == "float32" and "bfloat16" in (factors_type.value, kernel.dtype):
            return float32_product(x, kernel, "bfloat16")
        return jax.lax.dot_general(x, kernel.astype(self.dtype), (((x.ndim - 1,), (0,)), ((), ())))


class Head(nn.Module):
    """A dense layer whose outputs are float32 whatever it computes in: logits, or features to be compared.

    Attributes:
      features: K.
      use_bias: add a bias.
      dtype: of the factors; see `products.float32_einsum`.
    """

    features: int
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        kernel = self.param("kernel", normal_init(x.shape[-1]), (x.shape[-1], self.features))
        y = float32_product(x, kernel, self.dtype)
        return y + self.param("bias", nn.initializers.zeros_init(), (self.features,)) if self.use_bias else y


class MLP(nn.Module):
    """Two dense layers with an activation between (Vaswani et al. 2017, section 3.3).

    Attributes:
      hidden: width between the layers.
      activation: a key of `ACTIVATIONS`.
      out_scale: of the second kernel's initial standard deviation.
      dtype: of the computation.
    """

    hidden: int
    activation: str
    out_scale: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        width = x.shape[-1]
        x = Dense(self.hidden, normal_init(width), self.dtype, name="up")(x)
        # For the backward pass its input alone is kept; a GELU would keep five arrays of this width.
        x = jax.checkpoint(ACTIVATIONS[self.activation], prevent_cse=False)(x)
        return Dense(width, normal_init(width, self.out_scale), self.dtype, name="down")(x)
