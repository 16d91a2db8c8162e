"""The start of a dVAE by k-means: all codes in use at once, each of them where its features are nearest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.evals.reconstruction import codebook_health
from t2i_jax.nn import codebooks
from t2i_jax.tasks import dvae

K = 64


@functools.cache
def built():
    task = tasks.make(load_config("dvae:smoke"))
    params = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    return task, task.model, params


@pytest.fixture(scope="module")
def pictures(data_dir):
    config = load_config("dvae:smoke")
    config.data.data_dir, config.kmeans_examples = str(data_dir), 32
    task = tasks.make(config)
    task.prepare(data_dir, {})
    return jnp.asarray(task.kmeans_images())


def features(model, params, images):
    kept = model.apply({"params": params}, images, method="encode", mutable=["intermediates"])[1]
    return kept["intermediates"]["encoder"]["features"][0].reshape(-1, 2 ** (model.groups - 1) * model.width)


@pytest.mark.slow
def test_codes_are_nearest_centres_and_all_in_use(pictures):
    _, model, params = built()
    started = dvae.kmeans_codes(model, params, pictures, jax.random.key(1))

    tokenize = jax.jit(functools.partial(model.apply, method="tokenize"))
    before, after = (np.asarray(tokenize({"params": each}, pictures)) for each in (params, started))
    assert codebook_health(before, K)["usage"] < 0.5
    assert codebook_health(after, K)["usage"] > 0.9

    flat = features(model, params, pictures)
    np.testing.assert_allclose(features(model, started, pictures), flat)  # what is below the codes stays
    output = started["encoder"]["output"]
    assert output["kernel"].shape == params["encoder"]["output"]["kernel"].shape
    # A kernel is twice the centre times the scale, a bias minus its square times the scale: the centres again.
    kernel, bias = output["kernel"][0, 0], output["bias"]
    scale = jnp.median(-jnp.sum(kernel**2, 0) / (4 * bias))
    np.testing.assert_array_equal(after.reshape(-1), codebooks.nearest_code(flat, (kernel / (2 * scale)).T))
    logits = np.sort(np.asarray(model.apply({"params": started}, pictures, method="encode")), -1)
    np.testing.assert_allclose(np.median(logits[..., -1] - logits[..., -2]), dvae.MARGIN, rtol=0.01)
    np.testing.assert_allclose(started["codes"].std(), 1, rtol=1e-3)


def test_it_can_be_switched_off_and_asks_for_enough_pictures(pictures):
    task, model, params = built()
    task.config.kmeans_examples = 0
    assert task.warm_start(params, {}, jax.random.key(1)) == (params, {})
    bigger = model.clone(codebook_size=1000)
    with pytest.raises(UserError, match=r"config\.kmeans_examples 1 gives 64 features, 1000 codes; raise it"):
        dvae.kmeans_codes(bigger, params, pictures[:1], jax.random.key(1))
