"""Training an autoencoder: its loss, its KL weight, posterior collapse, and what an evaluation counts."""

import functools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fakes import fake_variables

from t2i_jax import losses, models
from t2i_jax.config import load_config
from t2i_jax.evals import autoencoding
from t2i_jax.models import vae
from t2i_jax.tasks import autoencode
from t2i_jax.tasks.images import transform

LOSS = {"likelihood": "gaussian", "sigma": 0.2, "beta": 0.5, "kl_warmup": 4}
SIZE = 8 * 8 * 2


def build(variational=True):
    model = vae.Model(image_size=8, channels=2, latent=4, width=4, variational=variational)
    images = jnp.asarray(np.random.default_rng(0).random((6, 8, 8, 2), np.float32))
    variables = fake_variables(jax.eval_shape(model.init, jax.random.key(0), images))
    return model, variables["params"], images


def loss_of(model, params, images, step=9, seed=5, **changes):
    rngs = {"noise": jax.random.key(seed)}
    return autoencode.loss_fn(
        model, params, {}, {"image": images}, step=step, rngs=rngs, train=True, **LOSS | changes
    )


def test_kl_weight_grows_in_a_line_and_then_stays():
    drawn = build()

    @functools.partial(jax.jit, static_argnames="kl_warmup")
    def weight(step, kl_warmup=4):
        return loss_of(*drawn, step=step, kl_warmup=kl_warmup)[1][1]["kl_weight"]

    np.testing.assert_allclose([weight(step) for step in (0, 1, 3, 4, 100)], [0, 0.125, 0.375, 0.5, 0.5])
    assert weight(0, kl_warmup=0) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", autoencode.LIKELIHOODS)
def test_the_loss_is_the_weighted_elbo_of_drawn_vectors(likelihood):
    model, params, images = build()
    loss, (_, metrics) = loss_of(model, params, images, step=1, likelihood=likelihood)
    logits, mu, logvar = model.apply({"params": params}, images, jax.random.key(5))
    nats = {
        "bernoulli": losses.bernoulli_log_likelihood(logits, images),
        "gaussian": losses.gaussian_log_likelihood(jax.nn.sigmoid(logits), images, 0.2),
    }[likelihood].mean()
    kl = losses.kl_to_standard_normal(mu, logvar).sum(-1).mean()
    assert kl > 0.01
    expected = {"log_likelihood": float(nats), "kl": float(kl), "kl_weight": 0.125, "elbo": float(nats - kl)}
    assert {name: float(metrics[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert float(loss) == pytest.approx(float(0.125 * kl - nats) / SIZE, rel=1e-5)
    _, (_, other) = loss_of(model, params, images, step=1, seed=6, likelihood=likelihood)
    assert float(other["log_likelihood"]) != float(metrics["log_likelihood"])


def test_a_plain_autoencoder_has_no_kl_term():
    model, params, images = build(variational=False)
    loss, (_, metrics) = loss_of(model, params, images)
    assert set(metrics) == {"loss", "log_likelihood", "psnr"}
    assert float(loss) == pytest.approx(-float(metrics["log_likelihood"]) / SIZE, rel=1e-6)
    assert float(loss_of(model, params, images, beta=9.0)[0]) == float(loss)
    config = load_config("vae:mnist_ae")
    shape = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    shapes = jax.eval_shape(models.build(config).init, jax.random.key(0), shape)
    assert "logvar" not in shapes["params"]


def test_an_unknown_likelihood_is_refused():
    model, params, images = build()
    with pytest.raises(ValueError, match="'laplace' is unknown; choose bernoulli, gaussian"):
        loss_of(model, params, images, likelihood="laplace")


@pytest.fixture(scope="module")
def bars():
    """Pictures that three numbers describe: how bright their left, middle and right are."""
    levels = np.random.default_rng(1).random((96, 3), np.float32)
    return jnp.broadcast_to(levels[:, [0, 0, 0, 1, 1, 1, 2, 2]][:, None, :, None], (96, 8, 8, 1))


@pytest.fixture(scope="module")
def trained(bars):
    """`trained(beta)`: model, and its variables after 200 steps on `bars`."""
    model = vae.Model(image_size=8, channels=1, latent=4, width=4)
    optimizer = optax.adam(1e-2)
    first = model.init(jax.random.key(0), bars)["params"]

    @functools.cache
    def fit(beta):
        def step(carry, number):
            params, state = carry
            rngs = {"noise": jax.random.fold_in(jax.random.key(1), number)}
            gradient = jax.grad(autoencode.loss_fn, argnums=1, has_aux=True)
            loss = {"likelihood": "gaussian", "sigma": 0.1, "beta": beta, "kl_warmup": 0}
            batch = {"image": bars}
            grads, _ = gradient(model, params, {}, batch, step=number, rngs=rngs, train=True, **loss)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(200))[0][0])
        return model, run((first, optimizer.init(first)))

    return fit


def score(model, params, images, **options):
    """Scores on pictures in a data set of uint8."""
    dataset = grain.MapDataset.source([{"image": image} for image in np.uint8(images * 255 + 0.5)])
    predict = jax.jit(functools.partial(autoencode.predict, model, likelihood="gaussian", sigma=0.1))
    return autoencoding.evaluate(
        lambda batch, number: predict(params, {}, batch, jax.random.key(number)),
        params,
        dataset,
        transform,
        **options,
    )


@pytest.mark.slow
def test_active_units_tell_a_collapsed_posterior(trained, bars):
    free, _ = score(*trained(0.0), bars, batch_size=40)
    usual, grids = score(*trained(1.0), bars, batch_size=40)
    collapsed, _ = score(*trained(1000.0), bars, batch_size=40)
    assert (free["active_units"], collapsed["active_units"]) == (4, 0)
    assert 1 <= usual["active_units"] <= 4
    assert collapsed["kl"] < 0.05 < 1 < usual["kl"] < free["kl"]
    assert collapsed["psnr"] + 3 < usual["psnr"]
    assert usual["elbo"] > max(free["elbo"], collapsed["elbo"])
    assert grids["reconstructions"].shape == (2 * 8, 16 * 8, 3)


@pytest.mark.slow
def test_scores_are_means_over_every_picture(trained, bars):
    """37 pictures in batches of 16: what fills the last batch up counts nowhere."""
    model, params = trained(1.0)
    scores, _ = score(model, params, bars[:37], batch_size=16)
    images = jnp.uint8(bars[:37] * 255 + 0.5).astype(jnp.float32) / 255
    logits, mu, logvar = model.apply({"params": params}, images)
    kl = np.mean(losses.kl_to_standard_normal(mu, logvar), 0)
    assert scores["kl"] == pytest.approx(float(kl.sum()), rel=1e-4)
    np.testing.assert_allclose(scores["kl_units"], kl, rtol=1e-3, atol=1e-5)
    assert scores["elbo"] == pytest.approx(scores["log_likelihood"] - scores["kl"], rel=1e-5)
    assert scores["psnr"] == pytest.approx(float(losses.psnr(jax.nn.sigmoid(logits), images).mean()), rel=1e-4)
    assert scores["active_units"] == sum(np.var(np.asarray(mu), axis=0) > 0.01)


def test_active_units_by_hand():
    """Variances 0, 0.0025, 0.04 and, around a far mean, 1."""
    mu = np.array([[5, 0.05, 0.2, 8], [5, -0.05, -0.2, 10]])
    assert autoencoding.active_units(mu) == 2
