"""The VQ-VAE: features by a slow reading of their definition, the order of tokens, and what trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_variables

from configs import vqvae
from t2i_jax import losses, models
from t2i_jax.models.quantizers import EMAQuantizer, averages_of, codebook_of
from t2i_jax.models.vqvae import Model
from t2i_jax.tasks import reconstruct

K, COLOURS, STRENGTHS = 36, 7, 5
FIRST = {"colour": 0, "strength": COLOURS, "pattern": COLOURS + STRENGTHS}  # id of each codebook
SIZES = [(16, 8, 4, 1), (24, 12, 4, 2), (16, 8, 8, 3), (18, 6, 2, 1), (8, 8, 4, 2)]
sizes = pytest.mark.parametrize(("image_size", "block", "patch", "depth"), SIZES)


def build(image_size=16, block=8, patch=4, depth=1, **fields):
    """Without decoder blocks, which start as the identity, unless told."""
    fields = {
        "codebook_size": K,
        "colours": COLOURS,
        "strengths": STRENGTHS,
        "width": 24,
        "decoder_layers": 0,
    } | fields
    return Model(image_size=image_size, block=block, patch=patch, depth=depth, **fields)


def pictures(count=3, side=16, seed=0):
    return jnp.array(np.random.default_rng(seed).random((count, side, side, 3), np.float32))


def strengths(count=3, side=16, seed=1):
    """Grey values away from 0, one a pixel."""
    return np.random.default_rng(seed).uniform(0.2, 1, (count, side, side, 1)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "train", "mutable"))
def apply(model, variables, *inputs, **options):
    return model.apply(variables, *inputs, **options)


def start(model):
    """Codes of the size of features, some of them negative; no params."""
    rng, averages = np.random.default_rng(2), {}
    widths = {"colour": 3, "strength": (model.block // model.patch) ** 2, "pattern": model.patch**2}
    for name, width in widths.items():
        codes = jnp.array(rng.normal(0.5, 0.3, (model.sizes[name], width)), jnp.float32)
        averages[name] = averages_of(codes, jnp.full(len(codes), 1 / len(codes)))
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
    side, colours, strength, pattern = len(image), {}, [], []
    for y, x in corners(side, block):
        mean = image[y : y + block, x : x + block].mean((0, 1))
        length = np.sqrt((mean**2).sum())
        colours[y, x] = mean / length if length > 1e-6 else np.zeros(3)
        powers = []
        for down, right in corners(block, patch):
            pixels = image[y + down : y + down + patch, x + right : x + right + patch] @ colours[y, x]
            powers.append(np.sqrt((pixels**2).mean()))
        strength.append(powers)
    for y, x in corners(side, patch):
        colour = colours[y // block * block, x // block * block]
        pattern.append((image[y : y + patch, x : x + patch] @ colour).ravel())
    features = {"colour": list(colours.values()), "strength": strength, "pattern": pattern}
    return {name: np.array(values) for name, values in features.items()}


def slow_pictures(model, codebooks, ids):
    """Pixels in [0, 1] of ids, while the decoder's blocks are the identity."""
    images = np.zeros((len(ids), model.image_size, model.image_size, 3))
    for image, row in zip(images, np.asarray(ids), strict=True):
        rest = iter(row[-model.counts["pattern"] :])
        for y, x in corners(model.image_size, model.patch):
            drawn = [next(rest) for _ in range(model.depth)]
            pattern = sum(codebooks["pattern"][i - FIRST["pattern"]] * (i >= FIRST["pattern"]) for i in drawn)
            per_row = model.image_size // model.block
            i = row[y // model.block * per_row + x // model.block]
            colour = codebooks["colour"][i % COLOURS] * (i < COLOURS)
            pixels = pattern.reshape(model.patch, model.patch, 1) * colour
            image[y : y + model.patch, x : x + model.patch] = np.clip(pixels, 0, 1)
    return images


def codebooks_of(variables):
    return {name: np.asarray(codebook_of(averages)) for name, averages in variables["codebook"].items()}


def brute_force(features, codebook):
    return ((features[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)


# --- features


@sizes
def test_features_are_what_their_definition_says(image_size, block, patch, depth):
    images = np.array(pictures(side=image_size))
    images[1, :block, -block:] = 0
    features = encode(images, block=block, patch=patch, depth=depth)
    for number, image in enumerate(images):
        for name, values in slow_features(image, block, patch).items():
            np.testing.assert_allclose(features[name][number], values, atol=1e-5)


def of_one_hue_a_block(side, block):
    hues = np.random.default_rng(0).uniform(0.1, 1, (3, side // block, side // block, 3)).astype(np.float32)
    return strengths(side=side) * hues.repeat(block, 1).repeat(block, 2)


@sizes
def test_one_hue_a_block_comes_back_exactly(image_size, block, patch, depth):
    images = of_one_hue_a_block(image_size, block)
    features = encode(images, block=block, patch=patch, depth=depth)
    model = build(image_size, block, patch, depth)
    back = apply(model, {}, features["colour"], features["pattern"], method="decode")
    np.testing.assert_allclose(back, images, atol=1e-5)


def test_decoder_blocks_start_as_the_identity():
    model, images = build(decoder_layers=2), of_one_hue_a_block(16, 8)
    features = encode(images)
    features = features["colour"], features["pattern"]
    fresh = jax.jit(model.init)(jax.random.key(0), jnp.asarray(images))
    assert set(fresh["params"]) == {"decoder_0", "decoder_1"}
    np.testing.assert_allclose(apply(model, fresh, *features, method="decode"), images, atol=1e-5)
    assert np.abs(apply(model, trained_like(model), *features, method="decode") - images).max() > 0.05


def test_strengths_of_patches_by_hand():
    """A block of patches 1, 2 over 3, 4 (tenths), all of one red."""
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[0, :, :, 0] = np.array([[0.1, 0.2], [0.3, 0.4]]).repeat(4, 0).repeat(4, 1)
    features = encode(image)
    np.testing.assert_allclose(features["colour"][0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(features["strength"][0, 0], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(features["pattern"][0], np.repeat([[0.1], [0.2], [0.3], [0.4]], 16, 1), atol=1e-6)


@pytest.mark.parametrize("faint", [0.0, 1e-8])
def test_a_black_block_has_no_colour_and_no_strength(faint):
    images = np.array(pictures())
    images[0, 8:, :8] = faint
    features = encode(images)
    assert all(np.isfinite(values).all() for values in features.values())
    assert (features["colour"][0, 2] == 0).all()
    assert (features["strength"][0, 2] == 0).all()
    assert (features["pattern"][0].reshape(4, 4, 16)[2:, :2] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(np.delete(features["colour"][0], 2, 0), axis=1), 1, rtol=1e-5)


def test_another_hue_is_another_colour_and_nothing_else():
    grey = strengths()
    red, blue = np.array([0.8, 0.6, 0], np.float32), np.array([0, 0.28, 0.96], np.float32)  # both of length 1
    one, other, dim = (encode(grey * hue) for hue in (red, blue, blue / 4))
    np.testing.assert_allclose(one["colour"], np.broadcast_to(red, (3, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(other["colour"], np.broadcast_to(blue, (3, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(dim["colour"], other["colour"], atol=1e-5)
    assert one["strength"].min() > 0.05
    np.testing.assert_allclose(one["strength"], other["strength"], atol=1e-5)
    np.testing.assert_allclose(dim["strength"] * 4, other["strength"], atol=1e-5)
    np.testing.assert_allclose(one["pattern"], other["pattern"], atol=1e-5)
    np.testing.assert_allclose(dim["pattern"] * 4, other["pattern"], atol=1e-5)


# --- tokens


@sizes
def test_shapes(image_size, block, patch, depth):
    model, images = build(image_size, block, patch, depth), pictures(side=image_size)
    variables = start(model)
    reconstructions, features, codes, ids = apply(model, variables, images)
    blocks, patches = (image_size // block) ** 2, (image_size // patch) ** 2
    assert reconstructions.shape == images.shape
    widths = {"colour": 3, "strength": (block // patch) ** 2, "pattern": patch**2}
    shapes = {name: (3, patches if name == "pattern" else blocks, width) for name, width in widths.items()}
    assert {name: x.shape for name, x in features.items()} == shapes
    assert {name: x.shape for name, x in codes.items()} == shapes
    assert ids.shape == (3, 2 * blocks + patches * depth) == (3, model.num_tokens)
    assert model.counts == {"colour": blocks, "strength": blocks, "pattern": patches * depth}
    assert model.depths == {"colour": 1, "strength": 1, "pattern": depth}
    assert model.sizes == {"colour": COLOURS, "strength": STRENGTHS, "pattern": K - COLOURS - STRENGTHS}
    made = jax.eval_shape(model.init, jax.random.key(0), images)["codebook"]
    totals = {name: averages["total"].shape for name, averages in made.items()}
    assert totals == {name: (model.sizes[name], width) for name, width in widths.items()}


@sizes
def test_tokens_are_colours_strengths_and_patterns_row_by_row_depths_side_by_side(image_size, block, patch, depth):
    model, images = build(image_size, block, patch, depth), pictures(side=image_size)
    variables = start(model)
    codebooks, expected = codebooks_of(variables), []
    for image in np.asarray(images):
        row = []
        for name, left in slow_features(image, block, patch).items():
            chosen = []
            for _ in range(model.depths[name]):
                chosen.append(brute_force(left, codebooks[name]))
                left = left - codebooks[name][chosen[-1]]
            row += [*(FIRST[name] + np.stack(chosen, 1)).ravel()]
        expected.append(row)
    ids = np.asarray(apply(model, variables, images, method="tokenize"))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)
    assert len(np.unique(ids)) > 5


def test_ids_lie_in_the_range_of_their_codebook():
    model = build(depth=2)
    ids = apply(model, start(model), pictures(20), method="tokenize")
    colours, strengths, patterns = np.split(np.asarray(ids), [4, 8], axis=1)
    assert 0 <= colours.min() < colours.max() < COLOURS
    assert strengths.min() >= COLOURS
    assert strengths.max() < COLOURS + STRENGTHS
    assert patterns.shape == (20, 32)
    assert COLOURS + STRENGTHS <= patterns.min() < patterns.max() < K


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
    a_pattern = FIRST["pattern"] + 1
    ids = np.tile([0] * 4 + [COLOURS] * 4 + [a_pattern] * 16, (6, 1))
    ids[1, 1] = a_pattern  # for the colour of the block at the top right
    ids[2, 1] = COLOURS + 2
    ids[3, 8 + 6] = 5  # a colour for the pattern of the patch in row 1, column 2
    ids[4, 4:8] = [0, a_pattern, 5, K - 1]  # strengths are for who draws the patterns, not for the eye
    ids[5] = [a_pattern] * 8 + [0] * 16
    whole, *others = np.asarray(apply(model, variables, ids, method="detokenize"))
    assert (whole.reshape(4, 4, 4, 4, 3).max((1, 3, 4)) > 0.1).all()  # no patch is black by itself
    right_above, one_patch, none = (np.zeros((16, 16, 1), bool) for _ in range(3))
    right_above[:8, 8:] = one_patch[4:8, 8:12] = True
    for image, black in zip(others, (right_above, right_above, one_patch, none, ~none), strict=True):
        np.testing.assert_allclose(image, np.where(black, 0, whole), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_detokenize_gives_the_reconstruction_clipped(depth):
    model, images = build(depth=depth, decoder_layers=1), pictures()
    variables = trained_like(model)
    # Codes as large as pixels, so that decoding leaves [0, 1].
    variables["codebook"]["pattern"]["total"] *= 3
    reconstructions, _, _, ids = apply(model, variables, images)
    np.testing.assert_array_equal(apply(model, variables, images, method="tokenize"), ids)
    back = apply(model, variables, ids, method="detokenize")
    assert reconstructions.min() < -0.1
    assert reconstructions.max() > 1.1
    np.testing.assert_allclose(back, np.clip(reconstructions, 0, 1), atol=1e-5)


def test_the_codebook_holds_all_codes_in_spaces_apart():
    model = build(depth=2)
    variables = start(model)
    codebook, parts = apply(model, variables, method="codebook"), codebooks_of(variables)
    assert codebook.shape == (K, 3 + 4 + 16)
    expected, column = np.zeros((K, 23)), 0
    for name in ("colour", "strength", "pattern"):
        rows, columns = parts[name].shape
        expected[FIRST[name] : FIRST[name] + rows, column : column + columns] = parts[name]
        column += columns
    np.testing.assert_allclose(codebook, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 18}, "image_size 18 is not divisible by block 8"),
        ({"patch": 3}, "block 8 is not divisible by patch 3"),
        ({"patch": 16}, "block 8 is not divisible by patch 16"),
        ({"colours": 31}, "codebook_size 36, less colours 31 and strengths 5, leaves no pattern"),
        ({"strengths": 40}, "codebook_size 36, less colours 7 and strengths 40, leaves no pattern"),
        ({"colours": 0}, "colours 0"),
        ({"strengths": 0}, "strengths 0"),
        ({"strengths": -1}, "strengths -1"),
        ({"depth": 5}, "24 patterns are not divisible by depth 5"),
    ],
)
def test_sizes_that_do_not_fit(fields, said):
    model = build(**fields)
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), pictures(side=model.image_size))


# --- training


def test_training_moves_each_codebook_by_its_own_features_and_evaluating_moves_none():
    model, images = build(depth=2), pictures()
    variables = start(model)
    (_, features, codes, ids), after = apply(model, variables, images, train=True, mutable=("codebook",))
    for name, size in model.sizes.items():
        quantizer = EMAQuantizer(size, model.depths[name], model.decay)
        alone, expected = quantizer.apply(
            {"codebook": variables["codebook"][name]}, features[name], update=True, mutable=["codebook"]
        )
        moved = np.abs(after["codebook"][name]["total"] - variables["codebook"][name]["total"])
        assert moved.max() > 1e-4
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-6), after["codebook"][name], expected["codebook"]
        )
        np.testing.assert_allclose(codes[name], alone[0], atol=1e-6)
        first = {"colour": 0, "strength": 4, "pattern": 8}[name]
        mine = ids[:, first : first + model.counts[name]]
        np.testing.assert_array_equal(mine - FIRST[name], alone[1])
    _, kept = apply(model, variables, images, train=False, mutable=("codebook",))
    jax.tree.map(np.testing.assert_array_equal, kept["codebook"], variables["codebook"])


def test_bfloat16_computes_while_parameters_stay_float32():
    images = pictures()
    wide, narrow = build(decoder_layers=2), build(decoder_layers=2, dtype="bfloat16")
    variables = trained_like(wide)
    shapes = jax.eval_shape(narrow.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact, rounded = (
        apply(model, variables, images, train=True, mutable=("codebook",)) for model in (wide, narrow)
    )
    assert rounded[0][0].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(rounded[1])} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(rounded[0][3], exact[0][3])  # tokens do not depend on it
    difference = np.abs(rounded[0][0] - exact[0][0]).max()
    assert 1e-4 < difference < 0.2
    codes = exact[0][2]["colour"], exact[0][2]["pattern"]
    program = str(jax.make_jaxpr(lambda *inputs: narrow.apply(*inputs, method="decode"))(variables, *codes))
    products = [line for line in program.splitlines() if "dot_general[" in line]
    assert len(products) == 4 * narrow.decoder_layers
    assert all(":bf16[" in line for line in products), products


LOSS = {"commitment_weight": 0.25, "foreground_weight": 2.0}


def loss_of(model, params, variables, images, **weights):
    batch, codebook = {"image": images}, {"codebook": variables["codebook"]}
    return reconstruct.loss_fn(model, params, codebook, batch, step=0, rngs={}, train=True, **LOSS | weights)


@pytest.mark.parametrize("lit", [True, False])
def test_the_loss_and_its_gradients_are_finite_where_pictures_are_black(lit):
    model, images = build(depth=2, decoder_layers=2), np.zeros((3, 16, 16, 3), np.float32)
    if lit:
        images[0, :8, :12] = pictures(1)[0, :8, :12]
    variables = trained_like(model)
    step = jax.jit(jax.grad(functools.partial(loss_of, model), has_aux=True))
    gradients, (after, metrics) = step(variables["params"], variables, images)
    assert set(gradients) == {"decoder_0", "decoder_1"}
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))


def test_the_loss_adds_the_commitment_to_each_codebook():
    model, images = build(), pictures()
    variables = start(model)
    (loss, (_, metrics)), (error, _) = (
        loss_of(model, {}, variables, images, commitment_weight=weight) for weight in (0.25, 0.0)
    )
    reconstructions, features, codes, _ = apply(model, variables, images)
    strays = {name: float(jnp.mean((features[name] - codes[name]) ** 2)) for name in model.sizes}
    assert min(strays.values()) > 1e-3
    assert float(metrics["commitment"]) == pytest.approx(sum(strays.values()), rel=1e-4)
    assert float(loss - error) == pytest.approx(0.25 * sum(strays.values()), rel=1e-3)
    assert float(error) == pytest.approx(float(losses.squared_error(reconstructions, images, 2.0).mean()), rel=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_start_is_a_tokenizer_that_works_for_unseen_pictures(depth, data_dir):
    config = vqvae.get_config("smoke")
    config.data.data_dir, config.model.depth, config.model.decoder_layers = str(data_dir), depth, 0
    model, splits = models.build(config), reconstruct.inputs(config)[0]
    images = jnp.stack([splits["validation"][i]["image"] for i in range(32)]).astype(jnp.float32) / 255
    variables = fake_variables(jax.eval_shape(model.init, jax.random.key(0), images))
    params, started = reconstruct.start(model, {}, variables, config, jax.random.key(0))
    assert params == {}
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, variables)
    for name, averages in started["codebook"].items():
        np.testing.assert_allclose(averages["frequency"].sum(), 1, atol=0.1)
        assert averages["frequency"].min() > 0
        if name == "colour":  # directions of colours have length 1 or, of black, 0
            lengths = np.linalg.norm(codebook_of(averages), axis=1)
            assert ((lengths < 0.01) | (lengths > 0.9)).mean() > 0.7
    before, after = (np.mean(losses.psnr(apply(model, state, images)[0], images)) for state in (variables, started))
    assert after > max(19, before + 4)


def test_upkeep_revives_the_dead_of_each_codebook_from_its_own_features():
    """Depth 2: a dead pattern may come back as what a first pattern left over."""
    model, images = build(depth=2), pictures()
    variables = start(model)
    dead = {"colour": [1, 6], "strength": [2, 3], "pattern": [0, 5, 20]}
    for name, codes in dead.items():
        averages = variables["codebook"][name]
        frequency = averages["frequency"].at[jnp.array(codes)].multiply(0.004)
        variables["codebook"][name] = averages_of(
            codebook_of(averages) + 50 * (frequency < 1e-3)[:, None], frequency
        )
    after = jax.jit(functools.partial(reconstruct.upkeep, model, {}))(
        variables, {"image": images}, jax.random.key(3)
    )
    features = encode(images, depth=2)
    for name, codes in dead.items():
        before, revived = (np.asarray(codebook_of(state["codebook"][name])) for state in (variables, after))
        alive = np.delete(np.arange(len(before)), codes)
        np.testing.assert_allclose(revived[alive], before[alive], atol=1e-5)
        np.testing.assert_allclose(after["codebook"][name]["frequency"], 1 / len(before), rtol=1e-5)
        seeds = features[name].reshape(-1, before.shape[1])
        if name == "pattern":
            seeds = np.concatenate([seeds, seeds - before[brute_force(seeds, before)]])
        nearest = np.abs(revived[codes][:, None] - seeds).max(-1)
        assert (nearest.min(1) < 1e-4).all()
        assert len(np.unique(nearest.argmin(1))) == len(codes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_sizes_by_shape(dtype):
    model = Model(codebook_size=8192, image_size=256, colours=64, strengths=448, depth=4, width=512, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    ids = jax.eval_shape(lambda v, x: model.apply(v, x, method="tokenize"), variables, images)
    assert ids.shape == (2, 2 * 256 + 4096) == (2, model.num_tokens)
    totals = {name: averages["total"].shape for name, averages in variables["codebook"].items()}
    assert totals == {"colour": (64, 3), "strength": (448, 4), "pattern": (7680, 64)}
    back = jax.eval_shape(lambda v, x: model.apply(v, x, method="detokenize"), variables, ids)
    assert (back.shape, back.dtype) == (images.shape, images.dtype)
