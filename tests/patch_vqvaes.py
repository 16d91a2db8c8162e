"""Small patch VQ-VAEs for tests, pictures for them, and a slow reading of what they define."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from fakes import fake_variables

from t2i_jax.models.patch_vqvae import Model
from t2i_jax.nn.codebooks import codebook_of, statistics_of

K, HUES, GAINS = 36, 7, 5
SIZES = {"hue": HUES, "gain": GAINS, "shape": K - HUES - GAINS}
FIRST = {"hue": 0, "gain": HUES, "shape": HUES + GAINS}  # id of each codebook


def build(image_size=16, block=8, patch=4, residual_depth=1, **fields):
    """Without decoder blocks, which start as the identity, unless told."""
    fields = {
        "codebook_size": K,
        "hues": HUES,
        "gains": GAINS,
        "width": 24,
        "decoder_layers": 0,
    } | fields
    return Model(image_size=image_size, block=block, patch=patch, residual_depth=residual_depth, **fields)


def pictures(count=3, side=16, seed=0):
    return jnp.array(np.random.default_rng(seed).random((count, side, side, 3), np.float32))


def grey(count=3, side=16, seed=1):
    """Grey values away from 0, one a pixel."""
    return np.random.default_rng(seed).uniform(0.2, 1, (count, side, side, 1)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "train", "mutable"))
def apply(model, variables, *inputs, **options):
    return model.apply(variables, *inputs, **options)


def start(model):
    """Codes of the size of features, some of them negative; no params."""
    rng, averages = np.random.default_rng(2), {}
    widths = {"hue": 3, "gain": (model.block // model.patch) ** 2, "shape": model.patch**2}
    for name, width in widths.items():
        codes = jnp.array(rng.normal(0.5, 0.3, (SIZES[name], width)), jnp.float32)
        averages[name] = statistics_of(codes, jnp.full(len(codes), 1 / len(codes)))
    return {"codebook": averages}


def trained_like(model):
    """Variables whose kernels are nowhere zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), pictures(side=model.image_size))
    return start(model) | {"params": fake_variables(shapes["params"])}


def encode(images, **fields):
    """Features as numpy; without params, because there is nothing to learn in them."""
    model = build(images.shape[1], **fields)
    return jax.tree.map(np.asarray, apply(model, {}, jnp.asarray(images), method="encode"))


def corners(side, step):
    """Top left corners, row by row."""
    return [(y, x) for y in range(0, side, step) for x in range(0, side, step)]


def slow_features(image, block, patch):
    """Features of one picture, as their docstring defines them."""
    image = np.asarray(image, np.float64)
    side, hues, gains, shapes = len(image), {}, [], []
    for y, x in corners(side, block):
        mean = image[y : y + block, x : x + block].mean((0, 1))
        length = np.sqrt((mean**2).sum())
        hues[y, x] = mean / length if length > 1e-6 else np.zeros(3)
        powers = []
        for down, right in corners(block, patch):
            pixels = image[y + down : y + down + patch, x + right : x + right + patch] @ hues[y, x]
            powers.append(np.sqrt((pixels**2).mean()))
        gains.append(powers)
    for y, x in corners(side, patch):
        hue = hues[y // block * block, x // block * block]
        shapes.append((image[y : y + patch, x : x + patch] @ hue).ravel())
    features = {"hue": list(hues.values()), "gain": gains, "shape": shapes}
    return {name: np.array(values) for name, values in features.items()}


def slow_pictures(model, codebooks, ids):
    """Pixels in [0, 1] of ids, while the decoder's blocks are the identity."""
    images = np.zeros((len(ids), model.image_size, model.image_size, 3))
    for image, row in zip(images, np.asarray(ids), strict=True):
        rest = iter(row[-model.layout[-1].num_tokens :])
        for y, x in corners(model.image_size, model.patch):
            drawn = [next(rest) for _ in range(model.residual_depth)]
            shape = sum(codebooks["shape"][i - FIRST["shape"]] * (i >= FIRST["shape"]) for i in drawn)
            per_row = model.image_size // model.block
            i = row[y // model.block * per_row + x // model.block]
            hue = codebooks["hue"][i % HUES] * (i < HUES)
            pixels = shape.reshape(model.patch, model.patch, 1) * hue
            image[y : y + model.patch, x : x + model.patch] = np.clip(pixels, 0, 1)
    return images


def codebooks_of(variables):
    return {name: np.asarray(codebook_of(averages)) for name, averages in variables["codebook"].items()}


def brute_force(features, codebook):
    return ((features[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
