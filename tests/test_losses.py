"""Losses, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

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


def test_commitment():
    """Squares 1, 0, 0, 4; the gradient 2 (features - codes) / 4 flows into the features alone."""
    features, codes = array([1, 2], [3, 4])[None], array([0, 2], [3, 6])[None]
    np.testing.assert_allclose(losses.commitment(features, codes), [1.25])
    gradients = jax.grad(lambda *pair: losses.commitment(*pair)[0], argnums=(0, 1))(features, codes)
    np.testing.assert_allclose(gradients[0], [[[0.5, 0], [0, -1]]])
    np.testing.assert_array_equal(gradients[1], 0)


def test_commitment_is_per_picture():
    features = array([[1.0]], [[3.0]])
    np.testing.assert_allclose(losses.commitment(features, jnp.zeros_like(features)), [1, 9])


def test_psnr():
    """All pixels 0.1 off: 20 dB. One value of twelve 0.6 off, 0.36 / 12 = 0.03: 15.23 dB. Equal: capped."""
    targets = jnp.zeros((3, 2, 2, 3))
    images = targets.at[0].set(0.1).at[1, 0, 0, 0].set(0.6)
    np.testing.assert_allclose(losses.psnr(images, targets), [20, 15.228787, 100], rtol=1e-5)
