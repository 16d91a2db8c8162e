"""LPIPS in the loss and the scores of an image tokenizer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_variables
from flax.traverse_util import flatten_dict
from lpips_files import weights_of

from t2i_jax import runs, tasks
from t2i_jax.config import load_config
from t2i_jax.loop import setup
from t2i_jax.models import lpips
from t2i_jax.tasks import reconstruct


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights as `t2i convert lpips` writes them, of an AlexNet with random numbers."""
    folder = tmp_path_factory.mktemp("lpips")
    runs.write_weights(folder, weights_of("alexnet")[0], {}, 0)
    return folder


@pytest.fixture
def config(folder):
    config = load_config("vqvae:smoke")
    config.lpips_weights, config.loss.perceptual = str(folder), 0.5
    return config


def parts(config):
    """The loss of a config's task as a function of params and images, its model, and made-up values."""
    task = tasks.make(config)
    images = jnp.array(np.random.default_rng(0).random((3, 32, 32, 3), np.float32))
    variables = jax.tree.map(
        jnp.asarray, fake_variables(jax.eval_shape(task.model.init, jax.random.key(0), images))
    )
    params, loss_fn = variables.pop("params"), task.phases()[0].loss_fn

    def loss(params):
        return loss_fn(params, variables, {"image": images}, step=0, rngs={}, train=True)

    reconstructions = jax.jit(task.model.apply)({"params": params, **variables}, images)[0]
    return loss, params, images, reconstructions


@pytest.mark.slow
def test_the_loss_is_the_sum_and_its_gradient_reaches_the_model(config, folder):
    loss, params, images, reconstructions = parts(config)
    distances = jax.jit(lpips.distance)(lpips.load(folder), reconstructions, images)
    (value, (_, metrics)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    config.loss.perceptual = 0.0
    plain_loss, *_ = parts(config)
    (plain, (_, plain_metrics)), plain_gradient = jax.jit(jax.value_and_grad(plain_loss, has_aux=True))(params)
    np.testing.assert_allclose(metrics["lpips"], np.mean(distances), rtol=1e-5)
    np.testing.assert_allclose(value, plain + 0.5 * np.mean(distances), rtol=1e-5)
    assert metrics["loss"] == value
    assert "lpips" not in plain_metrics
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), gradient, plain_gradient)
    assert min(flatten_dict(moved["decoder"], sep="/").values()) > 0


def test_the_state_has_nothing_of_it(config):
    """So no optimizer moves the weights, and no checkpoint holds them."""
    with_it = setup.Setup(tasks.make(config)).shapes
    config.loss.perceptual, config.lpips_weights = 0.0, ""
    without = setup.Setup(tasks.make(config)).shapes
    assert jax.tree.structure(with_it) == jax.tree.structure(without)


def test_without_a_weight_it_is_not_computed(config, monkeypatch):
    monkeypatch.setattr(reconstruct.lpips, "distance", None)
    config.loss.perceptual = 0.0
    loss, params, *_ = parts(config)
    jax.eval_shape(loss, params)


@pytest.mark.slow
def test_a_run_is_scored_by_it(command, data_dir, folder, tmp_path):
    options = [f"--config.lpips_weights={folder}", "--config.loss.perceptual=0.1", "--config.steps=1"]
    code, said = command(
        "--config=configs/vqvae.py:smoke",
        f"--config.data.data_dir={data_dir}",
        f"--workdir={tmp_path / 'run'}",
        *options,
    )
    assert code == 0, said
    scores = json.loads((tmp_path / "run" / runs.SCORES).read_text())
    assert 0 < scores["lpips"] < 10
    params, variables, _, _ = runs.read_weights(tmp_path / "run")
    assert not any("alexnet" in name for name in flatten_dict({**params, **variables}, sep="/"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--config.loss.perceptual=0.1"],
            "config.loss.perceptual 0.1 needs released weights; set config.lpips_weights",
        ),
        (["--config.loss.perceptual=-1.0"], "config.loss.perceptual -1 is below 0"),
        (
            ["--config.lpips_weights=nowhere"],
            "nowhere/model.safetensors is missing; name a folder that t2i convert",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_is_prepared(command, tmp_path, options, said):
    code, lines = command(
        "--config=configs/vqvae.py:smoke",
        f"--config.data.data_dir={tmp_path / 'none'}",
        f"--workdir={tmp_path / 'run'}",
        *options,
    )
    assert code == 2
    assert said in lines[-1]
    assert not (tmp_path / "none").exists()


def test_pictures_too_small_for_the_network(config):
    config.data.image_size = config.model.image_size = 28
    with pytest.raises(reconstruct.UserError, match="nothing in pictures of 28 pixels, but from 31 on"):
        _ = tasks.make(config).lpips
