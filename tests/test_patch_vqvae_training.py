"""How a patch VQ-VAE trains: codebooks, loss, warm start, restarts of dead codes, and sizes too large to run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_variables
from flax.core import FrozenDict
from patch_vqvaes import apply, brute_force, build, codebooks_of, encode, pictures, start, trained_like

from t2i_jax import losses, tasks
from t2i_jax.config import load_config
from t2i_jax.models.patch_vqvae import Model
from t2i_jax.nn.codebooks import codebook_of, statistics_of
from t2i_jax.nn.quantizers import CodebookQuantizer
from t2i_jax.tasks import reconstruct


@pytest.mark.slow
def test_training_moves_each_codebook_by_its_own_features_and_evaluating_moves_none():
    model, images = build(residual_depth=2), pictures()
    variables = start(model)
    (_, _, ids), after = apply(model, variables, images, train=True, mutable=("codebook",))
    features = encode(images, residual_depth=2)
    first = 0
    for name, _, _, depth, first_id, size in model.layout:
        quantizer = CodebookQuantizer(size, model.widths[name], depth)
        alone, expected = quantizer.apply(
            {"codebook": variables["codebook"][name]}, jnp.asarray(features[name]), train=True, mutable=["codebook"]
        )
        moved = np.abs(after["codebook"][name]["embedding_sum"] - variables["codebook"][name]["embedding_sum"])
        assert moved.max() > 1e-4
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-6), after["codebook"][name], expected["codebook"]
        )
        end = first + alone.ids.shape[1]
        np.testing.assert_array_equal(ids[:, first:end] - first_id, alone.ids)
        first = end
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
    np.testing.assert_array_equal(rounded[0][2], exact[0][2])  # tokens do not depend on it
    difference = np.abs(rounded[0][0] - exact[0][0]).max()
    assert 1e-4 < difference < 0.2
    codes = (features := encode(images))["hue"], features["shape"]
    program = str(jax.make_jaxpr(lambda *inputs: narrow.apply(*inputs, method="decode"))(variables, *codes))
    products = [line for line in program.splitlines() if "dot_general[" in line]
    assert len(products) == 4 * narrow.decoder_layers
    assert all(":bf16[" in line for line in products), products


def loss_of(model, params, variables, images):
    batch, codebook = {"image": images}, {"codebook": variables["codebook"]}
    return reconstruct.loss_fn(model, params, codebook, batch, step=0, rngs={}, train=True, foreground_weight=2.0)


@pytest.mark.parametrize("lit", [True, False])
def test_the_loss_and_its_gradients_are_finite_where_pictures_are_black(lit):
    model, images = build(residual_depth=2, decoder_layers=2), np.zeros((3, 16, 16, 3), np.float32)
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
    """Gains, which no decoder reads, are bound by their whole distance as well."""
    images = pictures()
    both = [build(quantizer_options=FrozenDict({"ema": {"commitment": weight}})) for weight in (0.25, 0.0)]
    model, variables = both[0], start(both[0])
    (loss, (_, metrics)), (error, _) = (loss_of(model, {}, variables, images) for model in both)
    features, strays = encode(images), {}
    for name, codes in codebooks_of(variables).items():
        flat = features[name].reshape(-1, codes.shape[1])
        strays[name] = np.mean((flat - codes[brute_force(flat, codes)]) ** 2)
    assert min(strays.values()) > 1e-3
    expected = 0.25 * sum(strays.values()) + strays["gain"]
    assert float(metrics["quantizer_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(loss - error) == pytest.approx(0.25 * sum(strays.values()), rel=1e-3)
    reconstructions = apply(model, variables, images)[0]
    squared = float(losses.squared_error(reconstructions, images, 2.0).mean())
    assert float(error) == pytest.approx(squared + strays["gain"], rel=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_after_kmeans_it_is_a_tokenizer_that_works_for_unseen_pictures(depth, data_dir):
    config = load_config("patch_vqvae:smoke")
    config.data.data_dir, config.model.residual_depth, config.model.decoder_layers = str(data_dir), depth, 0
    task = tasks.make(config)
    model, validation = task.model, task.prepare(data_dir, {}).splits["validation"]
    images = jnp.stack([validation[i]["image"] for i in range(32)]).astype(jnp.float32) / 255
    variables = fake_variables(jax.eval_shape(model.init, jax.random.key(0), images))
    params, started = task.warm_start({}, variables, jax.random.key(0))
    assert params == {}
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, variables)
    for name, averages in started["codebook"].items():
        np.testing.assert_allclose(averages["cluster_size"].sum(), 1, atol=0.1)
        assert averages["cluster_size"].min() > 0
        if name == "hue":  # hues have length 1 or, of black, 0
            lengths = np.linalg.norm(codebook_of(averages), axis=1)
            assert ((lengths < 0.01) | (lengths > 0.9)).mean() > 0.7
    before, after = (np.mean(losses.psnr(apply(model, state, images)[0], images)) for state in (variables, started))
    assert after > max(19, before + 4)


def test_dead_codes_of_each_codebook_restart_from_its_own_features():
    """Depth 2: a dead shape may restart as a residual of a first shape."""
    model, images = build(residual_depth=2), pictures()
    variables = start(model)
    dead = {"hue": [1, 6], "gain": [2, 3], "shape": [0, 5, 20]}
    for name, codes in dead.items():
        averages = variables["codebook"][name]
        frequency = averages["cluster_size"].at[jnp.array(codes)].multiply(0.004)
        variables["codebook"][name] = statistics_of(
            codebook_of(averages) + 50 * (frequency < 1e-3)[:, None], frequency
        )
    params, after = jax.jit(functools.partial(reconstruct.restart_dead_codes, model, {}))(
        variables, {"image": images}, jax.random.key(3)
    )
    assert params == {}
    features = encode(images, residual_depth=2)
    for name, codes in dead.items():
        before, restarted = (np.asarray(codebook_of(state["codebook"][name])) for state in (variables, after))
        alive = np.delete(np.arange(len(before)), codes)
        np.testing.assert_array_equal(restarted[alive], before[alive])
        np.testing.assert_allclose(after["codebook"][name]["cluster_size"], 1 / len(before), rtol=1e-5)
        seeds = features[name].reshape(-1, before.shape[1])
        if name == "shape":
            seeds = np.concatenate([seeds, seeds - before[brute_force(seeds, before)]])
        nearest = np.abs(restarted[codes][:, None] - seeds).max(-1)
        assert (nearest.min(1) < 1e-4).all()
        assert len(np.unique(nearest.argmin(1))) == len(codes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_sizes_by_shape(dtype):
    model = Model(codebook_size=8192, image_size=256, hues=64, gains=448, residual_depth=4, width=512, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    ids = jax.eval_shape(lambda v, x: model.apply(v, x, method="tokenize"), variables, images)
    assert ids.shape == (2, 2 * 256 + 4096) == (2, model.num_tokens)
    totals = {name: averages["embedding_sum"].shape for name, averages in variables["codebook"].items()}
    assert totals == {"hue": (64, 3), "gain": (448, 4), "shape": (7680, 64)}
    back = jax.eval_shape(lambda v, x: model.apply(v, x, method="detokenize"), variables, ids)
    assert (back.shape, back.dtype) == (images.shape, images.dtype)
