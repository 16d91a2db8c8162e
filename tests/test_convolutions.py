"""Convolutions by patches and by XLA: the same parameters, outputs and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.nn import convolutions

MODULES = {
    "conv": convolutions.Conv(5),
    "same, few": convolutions.Same(5, 3),
    "same, many": convolutions.Same(5, 7),
    "down": convolutions.Down(5),
    "up": convolutions.Up(5),
}


def assert_close(tolerance, found, expected):
    """Within a part of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_ways_are_one_function(monkeypatch, name, dtype):
    module = MODULES[name].clone(dtype=dtype)
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, 6, 8, 6)), jnp.float32)
    found = []
    for patches in (True, False):
        monkeypatch.setattr(convolutions, "by_patches", lambda patches=patches: patches)
        params = module.init(jax.random.key(0), x)["params"]
        found.append(params)
        program = jax.make_jaxpr(lambda params: module.apply({"params": params}, x))(params)
        assert ("conv_general_dilated" in str(program)) is not patches
        params = jax.tree.map(lambda p: p + 0.1, params)

        def loss(params, x):
            return jnp.sum(jnp.sin(module.apply({"params": params}, x).astype(jnp.float32)))

        found[-1] = found[-1], module.apply({"params": params}, x), jax.grad(loss, (0, 1))(params, x)
    (params, out, grads), (other_params, other, other_grads) = found
    jax.tree.map(np.testing.assert_array_equal, params, other_params)
    assert out.dtype == other.dtype == jnp.dtype(dtype)
    if dtype == "float32":
        assert_close(1.5e-6, out, other)
        jax.tree.map(functools.partial(assert_close, 1.5e-6), grads, other_grads)
    else:  # two units in the last place
        assert_close(2**-7, out.astype("f4"), other.astype("f4"))
