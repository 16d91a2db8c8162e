"""The VQ-VAE: the identity at the start, what its methods promise, and where gradients flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from t2i_jax import losses
from t2i_jax.models.vqvae import Model

K = 32


def build(**fields):
    return Model(**{"codebook_size": K, "image_size": 16, "patch": 4, "width": 24} | fields)


def pictures(count=3, side=16, seed=0):
    return jax.random.uniform(jax.random.key(seed), (count, side, side, 3))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "train", "mutable"))
def apply(model, variables, inputs, **options):
    return model.apply(variables, inputs, **options)


@functools.partial(jax.jit, static_argnums=0)
def initialise(model, images):
    return model.init(jax.random.key(0), images)


@functools.partial(jax.jit, static_argnums=0)
def trained_like(model, images):
    """Variables whose kernels are nowhere zero."""
    variables = model.init(jax.random.key(0), images)
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return variables | {"params": jax.tree.unflatten(tree, noisy)}


def test_decoding_the_encoding_is_the_identity_at_the_start():
    model, images = build(encoder_layers=2, decoder_layers=2), pictures()
    variables = initialise(model, images)
    features = apply(model, variables, images, method="encode")
    np.testing.assert_allclose(features[1, 0], images[1, :4, :4].ravel(), atol=1e-6)  # raw patches, row by row
    np.testing.assert_allclose(features[1, 1], images[1, :4, 4:8].ravel(), atol=1e-6)
    np.testing.assert_allclose(apply(model, variables, features, method="decode"), images, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_shapes(depth):
    model, images = build(depth=depth), pictures()
    variables = initialise(model, images)
    reconstructions, features, codes, ids = apply(model, variables, images)
    assert reconstructions.shape == images.shape
    assert features.shape == codes.shape == (3, 16, 48)
    assert ids.shape == (3, 16 * depth) == (3, model.num_tokens)
    assert variables["codebook"]["quantizer"]["total"].shape == (K, 48)


@pytest.mark.parametrize("depth", [1, 2])
def test_tokenize_and_detokenize(depth):
    model, images = build(depth=depth), pictures()
    variables = trained_like(model, images)
    # Codes as large as pixels, so that decoding leaves [0, 1].
    variables["codebook"]["quantizer"]["total"] = 2 * jax.random.normal(jax.random.key(5), (K, 48)) / K
    reconstructions, _, _, ids = apply(model, variables, images)
    np.testing.assert_array_equal(apply(model, variables, images, method="tokenize"), ids)
    assert ids.dtype == jnp.int32
    assert 0 <= ids.min() < ids.max() < K
    back = apply(model, variables, ids, method="detokenize")
    assert reconstructions.min() < -0.1
    assert reconstructions.max() > 1.1
    np.testing.assert_allclose(back, np.clip(reconstructions, 0, 1), atol=1e-5)


def test_detokenize_reads_every_id():
    model = build()
    variables = trained_like(model, pictures())
    ids = jnp.arange(model.num_tokens * 2).reshape(2, -1)
    assert ids.max() == K - 1
    images = apply(model, variables, ids, method="detokenize")
    assert images.shape == (2, 16, 16, 3)
    assert np.isfinite(images).all()


def test_bfloat16_computes_while_parameters_stay_float32():
    images = pictures()
    wide, narrow = build(), build(dtype="bfloat16")
    variables = trained_like(wide, images)
    initialised = initialise(narrow, images)
    assert {x.dtype for x in jax.tree.leaves(initialised)} == {jnp.dtype("float32")}
    exact, rounded = (
        apply(model, variables, images, train=True, mutable=("codebook",)) for model in (wide, narrow)
    )
    assert rounded[0][0].dtype == jnp.float32
    assert rounded[1]["codebook"]["quantizer"]["total"].dtype == jnp.float32
    features, rounded_features = exact[0][1], rounded[0][1]
    np.testing.assert_allclose(rounded_features, features, atol=0.1)
    assert np.abs(rounded_features - features).max() > 1e-4
    program = str(jax.make_jaxpr(lambda *inputs: narrow.apply(*inputs, method="encode"))(variables, images))
    products = [line for line in program.splitlines() if "dot_general[" in line]
    assert len(products) == 4
    assert all(":bf16[" in line for line in products), products


def test_training_moves_the_codebook_and_evaluating_does_not():
    model, images = build(), pictures()
    variables = trained_like(model, images)
    changes = {}
    for train in (True, False):
        _, changed = apply(model, variables, images, train=train, mutable=("codebook",))
        differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), changed["codebook"], variables["codebook"])
        changes[train] = max(jax.tree.leaves(differences))
    assert changes[True] > 1e-4
    assert changes[False] == 0


def test_an_image_size_that_patches_do_not_divide():
    with pytest.raises(ValueError, match="image_size 18 is not divisible by patch 4"):
        build(image_size=18).init(jax.random.key(0), pictures(side=18))


def test_commitment_trains_the_encoder_alone_and_reconstruction_trains_both():
    model, images = build(depth=2), pictures()
    variables = trained_like(model, images)

    def commitment(variables):
        _, features, codes, _ = apply(model, variables, images)
        return losses.commitment(features, codes).sum()

    def reconstruction(variables):
        return losses.squared_error(apply(model, variables, images)[0], images).sum()

    for loss, parts in ((commitment, {"encoder"}), (reconstruction, {"encoder", "decoder"})):
        gradients = flatten_dict(jax.jit(jax.grad(loss))(variables))
        flows = {path[1] for path, gradient in gradients.items() if jnp.abs(gradient).max() > 0}
        assert {name.split("_")[0] for name in flows} == parts, loss


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_sizes_by_shape(dtype):
    model = Model(codebook_size=8192, image_size=256, patch=8, depth=4, width=512, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    ids = jax.eval_shape(lambda v, x: model.apply(v, x, method="tokenize"), variables, images)
    assert ids.shape == (2, 4096) == (2, model.num_tokens)
    assert variables["codebook"]["quantizer"]["total"].shape == (8192, 192)
    back = jax.eval_shape(lambda v, x: model.apply(v, x, method="detokenize"), variables, ids)
    assert (back.shape, back.dtype) == (images.shape, images.dtype)
