"""Dense parts of a transformer: how kernels start, the MLP, the head whose logits are float32."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def float32_product(x: Float[Array, "*B D"], kernel: Float[Array, "D K"], dtype: str) -> Float[Array, "*B K"]:
    """`x @ kernel`, both rounded to `dtype` and their products summed in float32, which is also the result's type.

    A product that is rounded to bfloat16 has about 8 bits: of 8,192 logits most would be equal to another. The
    gradient that comes back is rounded to `dtype` too, for its own two products: one of a float32 and a bfloat16
    factor is computed as one of two float32, which is slow.
    """
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


def _float32_product_forward(x, kernel, dtype):
    return float32_product(x, kernel, dtype), (x, kernel)


def _float32_product_backward(dtype, factors, gradient):
    x, kernel = factors
    of_x = float32_product(gradient, kernel.T, dtype)
    of_kernel = float32_product(x.reshape(-1, x.shape[-1]).T, gradient.reshape(-1, gradient.shape[-1]), dtype)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


float32_product.defvjp(_float32_product_forward, _float32_product_backward)


class Head(nn.Module):
    """A dense layer whose outputs are float32 whatever it computes in: logits, or features to be compared.

    Attributes:
      features: K.
      use_bias: add a bias.
      dtype: of the factors; see `float32_product`.
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
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=normal_init(width), name="up")(x)
        # For the backward pass its input alone is kept; a GELU would keep five arrays of this width.
        x = jax.checkpoint(ACTIVATIONS[self.activation], prevent_cse=False)(x)
        return nn.Dense(width, dtype=self.dtype, kernel_init=normal_init(width, self.out_scale), name="down")(x)
