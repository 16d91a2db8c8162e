"""The convolutional autoencoder: shapes, the draw of latent vectors, and parity with torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_variables

from t2i_jax.models import vae


def build(size=12, channels=2, **fields):
    """A small model and made-up weights, large enough for its outputs to differ."""
    model = vae.Model(**({"image_size": size, "channels": channels, "latent": 5, "width": 3} | fields))
    images = jnp.asarray(np.random.default_rng(2).random((4, size, size, channels), np.float32))
    return model, fake_variables(jax.eval_shape(model.init, jax.random.key(0), images)), images


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (20, 2)])
@pytest.mark.parametrize("variational", [True, False])
def test_shapes(size, channels, variational):
    model = vae.Model(image_size=size, channels=channels, latent=7, width=4, variational=variational)
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert variables["params"]["features"]["conv_2"]["kernel"].shape == (4, 4, 4, 8)
    assert ("logvar" in variables["params"]) == variational
    mu, logvar = jax.eval_shape(functools.partial(model.apply, method="encode"), variables, images)
    assert mu.shape == (2, 7)
    assert (logvar.shape == (2, 7)) if variational else logvar is None
    assert jax.eval_shape(functools.partial(model.apply, method="decode"), variables, mu).shape == images.shape
    assert jax.eval_shape(model.apply, variables, images)[0].shape == images.shape


@pytest.mark.parametrize(("fields", "said"), [({"image_size": 30}, "30 is not"), ({"encoder": "eye"}, "'eye'")])
def test_what_cannot_be_built_says_why(fields, said):
    with pytest.raises(ValueError, match=said):
        build(**fields)


@pytest.mark.slow
def test_logits_decode_to_pixels_and_the_mean_is_decoded_without_a_key():
    model, variables, images = build()
    logits, mu, logvar = model.apply(variables, images)
    pictures = model.apply(variables, mu, method="decode")
    np.testing.assert_allclose(pictures, 1 / (1 + np.exp(-np.float64(logits))), atol=1e-6)
    drawn = model.apply(variables, images, jax.random.key(3))
    np.testing.assert_array_equal(drawn[1], mu)
    z = vae.reparameterise(jax.random.key(3), mu, logvar)
    np.testing.assert_allclose(drawn[0], model.apply(variables, z, method="logits"), atol=1e-5)
    assert np.abs(drawn[0] - logits).max() > 0.01


def test_a_plain_autoencoder_draws_nothing():
    model, variables, images = build(variational=False)
    plain, keyed = model.apply(variables, images), model.apply(variables, images, jax.random.key(3))
    np.testing.assert_array_equal(plain[0], keyed[0])
    assert plain[2] is keyed[2] is None


def test_reparameterised_draws_have_the_mean_and_deviation_and_pass_gradients():
    mu, logvar = jnp.array([[-2.0, 0.5, 3.0]]), jnp.log(jnp.array([[0.25, 1.0, 4.0]]))
    draws = vae.reparameterise(jax.random.key(0), mu.repeat(20_000, 0), logvar.repeat(20_000, 0))
    np.testing.assert_allclose(draws.mean(0), mu[0], atol=0.06)
    np.testing.assert_allclose(draws.std(0), [0.5, 1, 2], rtol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.03)
    by_mu, by_logvar = jax.grad(lambda *q: vae.reparameterise(jax.random.key(0), *q).sum(), (0, 1))(mu, logvar)
    noise = vae.reparameterise(jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros((1, 3)))
    np.testing.assert_allclose(by_mu, np.ones((1, 3)))
    np.testing.assert_allclose(by_logvar, 0.5 * np.exp(logvar / 2) * noise, rtol=1e-5)


@pytest.mark.parametrize(("size", "channels"), [(12, 2), (28, 1)])
def test_parity_with_torch(size, channels):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install -e .[parity]")
    F = torch.nn.functional
    model, variables, images = build(size, channels)
    params = jax.tree.map(lambda x: torch.tensor(np.float64(x)), variables["params"])

    def dense(x, at):
        return x @ at["kernel"] + at["bias"]

    x = torch.tensor(np.float64(images)).permute(0, 3, 1, 2)
    for name in ("conv_1", "conv_2"):
        at = params["features"][name]
        x = F.relu(F.conv2d(x, at["kernel"].permute(3, 2, 0, 1), at["bias"], stride=2, padding=1))
    x = x.permute(0, 2, 3, 1).flatten(1)
    mu, logvar = dense(x, params["mu"]), dense(x, params["logvar"])
    x = F.relu(dense(mu, params["decoder"]["dense"])).unflatten(1, (size // 4, size // 4, 6)).permute(0, 3, 1, 2)
    for name, after in (("conv_1", F.relu), ("conv_2", lambda x: x)):
        at = params["decoder"][name]
        kernel = at["kernel"].permute(2, 3, 0, 1)
        x = after(F.conv_transpose2d(x, kernel, at["bias"], stride=2, padding=1))
    found = model.apply(variables, images)
    for ours, theirs in zip(found, (x.permute(0, 2, 3, 1), mu, logvar), strict=True):
        assert theirs.std() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.slow
def test_bfloat16_computes_while_parameters_and_logits_stay_float32():
    model, variables, images = build()
    narrow = model.clone(dtype="bfloat16")
    shapes = jax.eval_shape(narrow.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact, rounded = (one.apply(variables, images) for one in (model, narrow))
    assert {x.dtype for x in rounded} == {jnp.dtype("float32")}
    difference = np.abs(exact[0] - rounded[0]).max()
    assert 1e-5 < difference < 0.1 * np.abs(exact[0]).max()
