"""Losses, against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from t2i_jax import losses


def array(*values):
    return jnp.array(values, jnp.float32)


def test_cross_entropy():
    """Softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8."""
    logits = jnp.broadcast_to(jnp.log(array(1, 2, 5)), (1, 3, 3))
    nats = losses.cross_entropy(logits, jnp.array([[0, 1, 2]]))
    np.testing.assert_allclose(nats, [np.log([8, 4, 1.6])], rtol=1e-6)


def test_squared_error():
    """A red pixel, (0.3² + 0.1²) off, and one that counts as black, 0.2² off; six values."""
    targets = array([0.2, 0, 0], [0.05, 0.1, 0]).reshape(1, 1, 2, 3)
    images = array([0.5, 0, 0.1], [0.05, 0.3, 0]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(losses.squared_error(images, targets), [(0.10 + 0.04) / 6], rtol=1e-5)
    np.testing.assert_allclose(losses.squared_error(images, targets, 3.0), [(0.30 + 0.04) / 6], rtol=1e-5)


def test_squared_error_is_per_picture():
    images = jnp.stack([jnp.full((2, 2, 3), value) for value in (0.0, 0.5, 1.0)])
    np.testing.assert_allclose(losses.squared_error(images, jnp.zeros_like(images)), [0, 0.25, 1])


def test_psnr():
    """All pixels 0.1 off: 20 dB. One value of twelve 0.6 off, 0.36 / 12 = 0.03: 15.23 dB. Equal: capped."""
    targets = jnp.zeros((3, 2, 2, 3))
    images = targets.at[0].set(0.1).at[1, 0, 0, 0].set(0.6)
    np.testing.assert_allclose(losses.psnr(images, targets), [20, 15.228787, 100], rtol=1e-5)


def test_bernoulli_log_likelihood():
    """Chances 3/4 and 1/5, targets 1 and 1/4; and logits at which a naive logarithm would overflow."""
    logits = jnp.log(array(3, 1 / 4)).reshape(1, 1, 2, 1)
    nats = losses.bernoulli_log_likelihood(logits, array(1, 0.25).reshape(1, 1, 2, 1))
    np.testing.assert_allclose(nats, [np.log(3 / 4) + 0.25 * np.log(1 / 5) + 0.75 * np.log(4 / 5)], rtol=1e-6)
    far = losses.bernoulli_log_likelihood(array(200, -200).reshape(2, 1, 1, 1), jnp.ones((2, 1, 1, 1)))
    np.testing.assert_allclose(far, [0, -200], atol=1e-6)


def test_gaussian_log_likelihood():
    """A pixel one deviation off, one exact; and scipy's on more."""
    means, targets = array(0.5, 0.2).reshape(1, 1, 2, 1), array(0.4, 0.2).reshape(1, 1, 2, 1)
    expected = -0.5 - 2 * (np.log(0.1) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(losses.gaussian_log_likelihood(means, targets, 0.1), [expected], rtol=1e-5)
    means, targets = jnp.asarray(np.random.default_rng(0).random((2, 3, 5, 4, 3), np.float32))
    expected = scipy.stats.norm.logpdf(targets, means, 0.3).sum((1, 2, 3))
    np.testing.assert_allclose(losses.gaussian_log_likelihood(means, targets, 0.3), expected, rtol=1e-5)


def test_kl_to_standard_normal():
    """Zero for N(0, 1); 1/2 one deviation off; by hand at variance 4; and the integral that defines it."""
    mu, logvar = array([0, 1, 0], [-0.7, 2, 0.3]), array([0, 0, np.log(4)], [-1.5, 0.8, 0.2])
    nats = losses.kl_to_standard_normal(mu, logvar)
    np.testing.assert_allclose(nats[0], [0, 0.5, (4 - np.log(4) - 1) / 2], rtol=1e-6)
    for m, v, found in zip(np.float64(mu[1]), np.float64(logvar[1]), nats[1], strict=True):
        q, p = scipy.stats.norm(m, np.exp(v / 2)), scipy.stats.norm()
        area = scipy.integrate.quad(lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -20, 20)[0]
        np.testing.assert_allclose(found, area, rtol=1e-5)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (-2.0, -1.5), (1.3, 0.7), (0.4, -3.0)])
def test_logit_laplace_is_a_density_over_mapped_pixels(mean, log_scale):
    """It integrates to 1 over (0, 1), taken in the logit as the ends are steep; half lies below its centre."""
    logits = np.linspace(-60, 60, 240_001)
    x = jnp.array(np.clip(1 / (1 + np.exp(-logits)), 1e-30, 1 - 1e-7), jnp.float32)
    inside = np.abs(logits) < 15  # float32 knows no number between 1 - 1e-7 and 1
    parameters = (jnp.full((len(x), 1, 1, 1), value, jnp.float32) for value in (mean, log_scale))
    density = np.exp(-np.asarray(losses.logit_laplace(*parameters, x[:, None, None, None]), np.float64))
    mass = density * np.asarray(x, np.float64) * (1 - np.asarray(x, np.float64)) * (logits[1] - logits[0])
    tails = np.exp(-(15 - abs(mean)) / np.exp(log_scale))
    assert mass[inside].sum() == pytest.approx(1, abs=2e-3 + tails)
    assert mass[inside & (logits < mean)].sum() == pytest.approx(0.5, abs=5e-3 + tails)


def test_logit_laplace_by_hand():
    """x = 1/2, mu = 1, b = 2: f = exp(-1/2) / (2 * 2 * 1/4). Two values of one picture are averaged."""
    one = jnp.ones((1, 1, 1, 2))
    said = losses.logit_laplace(one, jnp.log(2) * one, 0.5 * one)
    np.testing.assert_allclose(said, [0.5], rtol=1e-6)
    mixed = losses.logit_laplace(jnp.array([1.0, 3.0]).reshape(1, 1, 1, 2), jnp.log(2) * one, 0.5 * one)
    np.testing.assert_allclose(mixed, [1.0], rtol=1e-6)


def test_divergence_from_uniform():
    """Of 1/2, 1/4, 1/4: ln 3 - 1.5 ln 2. Uniform: 0. One of three for sure: ln 3."""
    logits = jnp.log(array([2, 1, 1], [5, 5, 5], [1e30, 1e-30, 1e-30]))
    expected = [np.log(3) - 1.5 * np.log(2), 0, np.log(3)]
    np.testing.assert_allclose(losses.divergence_from_uniform(logits), expected, atol=1e-6)
