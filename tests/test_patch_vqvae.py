"""The patch VQ-VAE: features by a slow reading of their definition, and the order of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from patch_vqvaes import (
    FIRST,
    GAINS,
    HUES,
    SIZES,
    K,
    apply,
    brute_force,
    build,
    codebooks_of,
    encode,
    grey,
    pictures,
    slow_features,
    slow_pictures,
    start,
    trained_like,
)

from t2i_jax.nn import layout

CASES = [(16, 8, 4, 1), (24, 12, 4, 2), (16, 8, 8, 3), (18, 6, 2, 1), (8, 8, 4, 2)]
sizes = pytest.mark.parametrize(("image_size", "block", "patch", "depth"), CASES)


# --- features


@sizes
def test_features_are_what_their_definition_says(image_size, block, patch, depth):
    images = np.array(pictures(side=image_size))
    images[1, :block, -block:] = 0
    features = encode(images, block=block, patch=patch, residual_depth=depth)
    for number, image in enumerate(images):
        for name, values in slow_features(image, block, patch).items():
            np.testing.assert_allclose(features[name][number], values, atol=1e-5)


def of_one_hue_a_block(side, block):
    hues = np.random.default_rng(0).uniform(0.1, 1, (3, side // block, side // block, 3)).astype(np.float32)
    return grey(side=side) * hues.repeat(block, 1).repeat(block, 2)


@sizes
def test_one_hue_a_block_comes_back_exactly(image_size, block, patch, depth):
    images = of_one_hue_a_block(image_size, block)
    features = encode(images, block=block, patch=patch, residual_depth=depth)
    model = build(image_size, block, patch, depth)
    back = apply(model, {}, features["hue"], features["shape"], method="decode")
    np.testing.assert_allclose(back, images, atol=1e-5)


def test_decoder_blocks_start_as_the_identity():
    model, images = build(decoder_layers=2), of_one_hue_a_block(16, 8)
    features = encode(images)
    features = features["hue"], features["shape"]
    fresh = jax.jit(model.init)(jax.random.key(0), jnp.asarray(images))
    assert set(fresh["params"]) == {"decoder_0", "decoder_1"}
    np.testing.assert_allclose(apply(model, fresh, *features, method="decode"), images, atol=1e-5)
    assert np.abs(apply(model, trained_like(model), *features, method="decode") - images).max() > 0.05


def test_gains_of_patches_by_hand():
    """A block of patches 1, 2 over 3, 4 (tenths), all of one red."""
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[0, :, :, 0] = np.array([[0.1, 0.2], [0.3, 0.4]]).repeat(4, 0).repeat(4, 1)
    features = encode(image)
    np.testing.assert_allclose(features["hue"][0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(features["gain"][0, 0], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(features["shape"][0], np.repeat([[0.1], [0.2], [0.3], [0.4]], 16, 1), atol=1e-6)


@pytest.mark.parametrize("faint", [0.0, 1e-8])
def test_a_black_block_has_no_hue_and_no_gain(faint):
    images = np.array(pictures())
    images[0, 8:, :8] = faint
    features = encode(images)
    assert all(np.isfinite(values).all() for values in features.values())
    assert (features["hue"][0, 2] == 0).all()
    assert (features["gain"][0, 2] == 0).all()
    assert (features["shape"][0].reshape(4, 4, 16)[2:, :2] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(np.delete(features["hue"][0], 2, 0), axis=1), 1, rtol=1e-5)


def test_another_hue_changes_nothing_else():
    values = grey()
    red, blue = np.array([0.8, 0.6, 0], np.float32), np.array([0, 0.28, 0.96], np.float32)  # both of length 1
    one, other, dim = (encode(values * hue) for hue in (red, blue, blue / 4))
    np.testing.assert_allclose(one["hue"], np.broadcast_to(red, (3, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(other["hue"], np.broadcast_to(blue, (3, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(dim["hue"], other["hue"], atol=1e-5)
    assert one["gain"].min() > 0.05
    np.testing.assert_allclose(one["gain"], other["gain"], atol=1e-5)
    np.testing.assert_allclose(dim["gain"] * 4, other["gain"], atol=1e-5)
    np.testing.assert_allclose(one["shape"], other["shape"], atol=1e-5)
    np.testing.assert_allclose(dim["shape"] * 4, other["shape"], atol=1e-5)


# --- tokens


@sizes
def test_shapes(image_size, block, patch, depth):
    model, images = build(image_size, block, patch, depth), pictures(side=image_size)
    variables = start(model)
    reconstructions, loss, ids = apply(model, variables, images)
    features = encode(images, block=block, patch=patch, residual_depth=depth)
    blocks, patches = (image_size // block) ** 2, (image_size // patch) ** 2
    assert reconstructions.shape == images.shape
    widths = {"hue": 3, "gain": (block // patch) ** 2, "shape": patch**2}
    shapes = {name: (3, patches if name == "shape" else blocks, width) for name, width in widths.items()}
    assert {name: x.shape for name, x in features.items()} == shapes
    assert loss.shape == (3,)
    assert model.widths == widths
    assert ids.shape == (3, 2 * blocks + patches * depth) == (3, model.num_tokens)
    sides = image_size // block, image_size // patch
    assert model.layout == (
        ("hue", sides[0], sides[0], 1, 0, HUES),
        ("gain", sides[0], sides[0], 1, HUES, GAINS),
        ("shape", sides[1], sides[1], depth, HUES + GAINS, K - HUES - GAINS),
    )
    made = jax.eval_shape(model.init, jax.random.key(0), images)["codebook"]
    totals = {name: averages["embedding_sum"].shape for name, averages in made.items()}
    assert totals == {name: (SIZES[name], width) for name, width in widths.items()}


@sizes
def test_tokens_are_hues_gains_and_shapes_row_by_row_residual_codes_side_by_side(image_size, block, patch, depth):
    model, images = build(image_size, block, patch, depth), pictures(side=image_size)
    variables = start(model)
    codebooks, expected = codebooks_of(variables), []
    for image in np.asarray(images):
        row = []
        for grid, left in zip(model.layout, slow_features(image, block, patch).values(), strict=True):
            chosen = []
            for _ in range(grid.residual_depth):
                chosen.append(brute_force(left, codebooks[grid.name]))
                left = left - codebooks[grid.name][chosen[-1]]
            row += [*(FIRST[grid.name] + np.stack(chosen, 1)).ravel()]
        expected.append(row)
    ids = np.asarray(apply(model, variables, images, method="tokenize"))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)
    assert len(np.unique(ids)) > 5


def test_ids_are_valid_at_their_positions():
    model = build(residual_depth=2)
    ids, valid = apply(model, start(model), pictures(20), method="tokenize"), layout.valid_ids(model.layout)
    assert valid[np.arange(model.num_tokens), ids].all()
    hues, gains, shapes = np.split(np.asarray(ids), [4, 8], axis=1)
    assert 0 <= hues.min() < hues.max() < HUES <= gains.min()
    assert gains.max() < HUES + GAINS <= shapes.min() < shapes.max() < K


@sizes
def test_detokenize_reads_every_id_at_every_place(image_size, block, patch, depth):
    """An id of another codebook stands for zero."""
    model = build(image_size, block, patch, depth)
    variables = start(model)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(K) for _ in range(model.num_tokens)], axis=1)
    images = apply(model, variables, ids, method="detokenize")
    np.testing.assert_allclose(images, slow_pictures(model, codebooks_of(variables), ids), atol=1e-5)
    assert images.std() > 0.05


def test_an_id_of_another_codebook_is_black_where_it_stands_and_nowhere_else():
    model = build()
    variables = start(model)
    a_shape = FIRST["shape"] + 1
    ids = np.tile([0] * 4 + [HUES] * 4 + [a_shape] * 16, (6, 1))
    ids[1, 1] = a_shape  # for the hue of the block at the top right
    ids[2, 1] = HUES + 2
    ids[3, 8 + 6] = 5  # a hue for the shape of the patch in row 1, column 2
    ids[4, 4:8] = [0, a_shape, 5, K - 1]  # gains are not decoded
    ids[5] = [a_shape] * 8 + [0] * 16
    whole, *others = np.asarray(apply(model, variables, ids, method="detokenize"))
    assert (whole.reshape(4, 4, 4, 4, 3).max((1, 3, 4)) > 0.1).all()  # no patch is black by itself
    right_above, one_patch, none = (np.zeros((16, 16, 1), bool) for _ in range(3))
    right_above[:8, 8:] = one_patch[4:8, 8:12] = True
    for image, black in zip(others, (right_above, right_above, one_patch, none, ~none), strict=True):
        np.testing.assert_allclose(image, np.where(black, 0, whole), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_detokenize_gives_the_reconstruction_clipped(depth):
    model, images = build(residual_depth=depth, decoder_layers=1), pictures()
    variables = trained_like(model)
    # Codes as large as pixels, so that decoding leaves [0, 1].
    variables["codebook"]["shape"]["embedding_sum"] *= 3
    reconstructions, _, ids = apply(model, variables, images)
    np.testing.assert_array_equal(apply(model, variables, images, method="tokenize"), ids)
    back = apply(model, variables, ids, method="detokenize")
    assert reconstructions.min() < -0.1
    assert reconstructions.max() > 1.1
    np.testing.assert_allclose(back, np.clip(reconstructions, 0, 1), atol=1e-5)


def test_the_codebook_holds_all_codes_in_spaces_apart():
    model = build(residual_depth=2)
    variables = start(model)
    codebook, parts = apply(model, variables, method="codebook"), codebooks_of(variables)
    assert codebook.shape == (K, 3 + 4 + 16)
    expected, column = np.zeros((K, 23)), 0
    for name in ("hue", "gain", "shape"):
        rows, columns = parts[name].shape
        expected[FIRST[name] : FIRST[name] + rows, column : column + columns] = parts[name]
        column += columns
    np.testing.assert_allclose(codebook, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 18}, "image_size 18 is not divisible by 8;"),
        ({"patch": 3}, "block 8 is not divisible by patch 3"),
        ({"patch": 16}, "block 8 is not divisible by patch 16"),
        ({"hues": 31}, "codebook_size 36, less hues 31 and gains 5, leaves no shape"),
        ({"gains": 40}, "codebook_size 36, less hues 7 and gains 40, leaves no shape"),
        ({"hues": 0}, "hues 0"),
        ({"gains": 0}, "gains 0"),
        ({"gains": -1}, "gains -1"),
        ({"residual_depth": 5}, "24 shapes are not divisible by residual_depth 5"),
    ],
)
def test_sizes_that_do_not_fit(fields, said):
    model = build(**fields)
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), pictures(side=model.image_size))
