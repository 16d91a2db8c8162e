"""LPIPS (Zhang et al. 2018): how different two pictures look, by features of a network trained on ImageNet.

Weights are `{"vgg16" or "alexnet": {"conv_0": {"kernel", "bias"}, ...}, "heads": {"head_0", ...}}`, float32,
kernels HWIO. They are never trained here, and no part of a run.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from t2i_jax import files, runs
from t2i_jax.errors import UserError
from t2i_jax.models.resnet import normalise
from t2i_jax.nn.convolutions import Same

LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG16: width, convolutions
EPSILON = 1e-10


class VGG16(nn.Module):
    """Configuration D of Simonyan & Zisserman 2015, without its dense layers: features after five levels."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> list[Array]:
        features, number = [], 0
        for width, convolutions in LEVELS:
            x = _halved(x) if features else x
            for _ in range(convolutions):
                x = nn.relu(Same(width, 3, name=f"conv_{number}")(x))
                number += 1
            features.append(x)
        return features


class AlexNet(nn.Module):
    """Krizhevsky 2014 ("one weird trick"), without its dense layers: features after five convolutions."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> list[Array]:
        features = [nn.relu(nn.Conv(64, (11, 11), strides=4, padding=2, name="conv_0")(x))]
        for number, (width, side) in enumerate(((192, 5), (384, 3), (256, 3), (256, 3)), start=1):
            x = features[-1]
            x = nn.max_pool(x, (3, 3), strides=(2, 2)) if number < 3 else x
            features.append(nn.relu(Same(width, side, name=f"conv_{number}")(x)))
        return features


NETWORKS = {"vgg16": VGG16(), "alexnet": AlexNet()}
SMALLEST = {"vgg16": 16, "alexnet": 31}  # pixels, at which one feature is left along a side


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of LPIPS on "vgg16" or "alexnet", by name, "/" between its parts."""
    model, picture = NETWORKS[network], np.zeros((1, 32, 32, 3), np.float32)
    features, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), picture)
    found = {f"{network}/{name}": x.shape for name, x in flatten_dict(variables["params"], sep="/").items()}
    return found | {f"heads/head_{i}": (x.shape[-1],) for i, x in enumerate(features)}


def load(folder: str | Path) -> dict:
    """Weights that `t2i convert lpips` wrote, on the host.

    Raises:
      UserError: there are none, they are corrupt, or of something else.
    """
    path = Path(folder) / runs.WEIGHTS
    try:
        weights = runs.load_weights(path)[0]
    except files.CorruptError as error:
        raise UserError(f"{error}; name a folder that t2i convert lpips made") from None
    found = {name: x.shape for name, x in flatten_dict(weights, sep="/").items()}
    if not any(found == shapes(network) for network in NETWORKS):
        raise UserError(f"{path} holds no LPIPS; name a folder that t2i convert lpips made")
    return weights


def smallest_side(weights: dict) -> int:
    """Pixels a side that a picture must have for the network of some weights: 16 for VGG16, 31 for AlexNet."""
    return SMALLEST[_network(weights)]


def features(weights: dict, images: Float[Array, "B H W C"]) -> list[Float[Array, "B h w D"]]:
    """What the network of some weights sees in pixels in [0, 1], after ReLU, from fine to coarse.

    A grey picture is read as red, green and blue alike.

    Raises:
      ValueError: a side below `smallest_side`.
    """
    if min(images.shape[1:3]) < (least := smallest_side(weights)):
        raise ValueError(f"pictures of {images.shape[1:3]} pixels have no features; {least} a side have")
    network = _network(weights)
    colours = jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
    return NETWORKS[network].apply({"params": weights[network]}, normalise(colours))


def distance(weights: dict, images: Float[Array, "B H W C"], targets: Float[Array, "B H W C"]) -> Float[Array, "B"]:
    """LPIPS per pair of pictures, at least 0, for pixels in [0, 1] (eq. 1; version 0.1 of the released heads)."""
    total = jnp.zeros(len(images))
    for level, (x, y) in enumerate(zip(features(weights, images), features(weights, targets), strict=True)):
        differences = (_unit(x) - _unit(y)) ** 2
        total += jnp.mean(differences @ weights["heads"][f"head_{level}"], axis=(1, 2))
    return total


def embedding(weights: dict, images: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
    """Vectors whose squared distances are LPIPS, for pixels in [0, 1]: to compare many pictures with many."""
    parts = []
    for level, x in enumerate(features(weights, images)):
        scaled = _unit(x) * jnp.sqrt(weights["heads"][f"head_{level}"] / (x.shape[1] * x.shape[2]))
        parts.append(scaled.reshape(len(x), -1))
    return jnp.concatenate(parts, axis=1)


def _network(weights):
    return next(name for name in weights if name in NETWORKS)


def _unit(x):
    """Of length 1 along the channels. Where all are 0 they stay so; ReLU lets no gradient of the root through."""
    return x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)) + EPSILON)


def _halved(x):
    """The largest of each 2 x 2; an odd last row or column is left out, as torch does."""
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    rows = jnp.maximum(x[:, :height:2, :width], x[:, 1:height:2, :width])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
