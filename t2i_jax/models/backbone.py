"""A ResNet as the encoder of a picture model: pixels -> a feature map."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.models.resnet import ResNet, normalise


def has_resnet(fields) -> bool:
    """Whether a model with such fields has a ResNet as its encoder."""
    return getattr(fields, "encoder", None) == "resnet"


def is_frozen(fields) -> bool:
    """Whether it has one that is frozen.

    One that starts at random has nothing to keep, and is trained whatever `backbone.frozen` says.
    """
    return has_resnet(fields) and fields.pretrained and Backbone(**fields.backbone).frozen


def encoder_of(model, convolutions: Callable[[], nn.Module]) -> nn.Module:
    """What turns a model's pictures into features, as its `encoder` says: `convolutions()`, or a ResNet.

    Raises:
      ValueError: `encoder` is neither "conv" nor "resnet".
    """
    if model.encoder == "conv":
        return convolutions()
    if has_resnet(model):
        return Backbone(**{**model.backbone, "frozen": is_frozen(model)}, dtype=model.dtype)
    raise ValueError(f"encoder {model.encoder!r} is unknown; choose conv or resnet")


class Backbone(nn.Module):
    """A ResNet cut after one of its stages.

    Attributes:
      depth: 50 or 101.
      stage: the last stage run, 1 to 4; it gives one feature vector to 2**(stage + 1) pixels along each side.
      frozen: parameters and batch statistics stay as they are.
      dtype: of the computation.
    """

    depth: int = 101
    stage: int = 4
    frozen: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B h w D"]:
        """Features of pixels in [0, 1], at least 0. A grey picture is read as red, green and blue alike."""
        colours = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        resnet = ResNet(self.depth, self.stage, freeze_stats=self.frozen, dtype=self.dtype, name="resnet")
        features = resnet(normalise(colours), train=train)
        return jax.lax.stop_gradient(features) if self.frozen else features
