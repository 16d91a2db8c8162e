"""Muon, against its five iterations written out in numpy, one matrix at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.loop.optimizer import Optim, make_optimizer

RATE, MUON, BETA = 0.4, 2.0, 0.95
SETTINGS = {"lr": RATE, "warmup": 0, "schedule": "constant", "clip": 0.0}


def orthogonalized(matrix):
    """Jordan et al. 2024: five quintic iterations, in float64."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / np.linalg.norm(wide)
    for _ in range(5):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x if wide is matrix else x.T


def expected_updates(gradients, decay, weight):
    """Muon's updates of one kernel, by Nesterov momentum without bias, each of AdamW's usual size."""
    momentum, updates = np.zeros_like(weight), []
    for t, gradient in enumerate(gradients, 1):
        momentum = BETA * momentum + (1 - BETA) * gradient
        ahead = BETA * momentum / (1 - BETA ** (t + 1)) + (1 - BETA) * gradient / (1 - BETA**t)
        size = 0.2 * np.sqrt(max(weight.shape))
        updates.append(-RATE * MUON * (size * orthogonalized(ahead) + decay * weight))
    return updates


def updates_of(params, gradients, **changes):
    """Updates of several steps from gradients that leave the params where they are."""
    optimizer = make_optimizer(Optim(**SETTINGS, **changes), 20)
    state, updates = optimizer.init(params), []
    for gradient in gradients:
        update, state = optimizer.update(gradient, state, params)
        updates.append(update)
    return updates


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def as_float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (5, 5)])
def test_updates_are_those_of_numpy(shape):
    weight, gradients = numbers(*shape), [numbers(*shape, seed=seed) for seed in (1, 2, 3)]
    params = as_float32({"up": {"kernel": weight}})
    found = updates_of(params, as_float32([{"up": {"kernel": g}} for g in gradients]), muon=MUON, weight_decay=0.1)
    for update, expected in zip(found, expected_updates(gradients, 0.1, weight), strict=True):
        np.testing.assert_allclose(update["up"]["kernel"], expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_of_stacked_layers_is_as_many_matrices():
    """Not one of L in rows, nor a larger one: their updates are as large as those of the layers apart."""
    weight, gradients = numbers(3, 8, 6), [numbers(3, 8, 6, seed=seed) for seed in (1, 2)]
    gradients = [g * np.array([1.0, 10.0, 0.1])[:, None, None] for g in gradients]
    stacked = updates_of(
        as_float32({"blocks": {"kernel": weight}}),
        as_float32([{"blocks": {"kernel": g}} for g in gradients]),
        muon=MUON,
    )
    apart = updates_of(
        as_float32({f"blocks_{i}": {"kernel": weight[i]} for i in range(3)}),
        as_float32([{f"blocks_{i}": {"kernel": g[i]} for i in range(3)} for g in gradients]),
        muon=MUON,
    )
    for step, (together, alone) in enumerate(zip(stacked, apart, strict=True)):
        for i in range(3):
            update = together["blocks"]["kernel"][i]
            np.testing.assert_allclose(update, alone[f"blocks_{i}"]["kernel"], rtol=1e-6, atol=1e-6)
            expected = expected_updates([g[i] for g in gradients], 0.0, weight[i])[step]
            np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-5)


def test_muon_trains_hidden_kernels_alone():
    """Everything else is AdamW's: embeddings, biases, outputs, convolutions, and what the config excludes."""
    params = {
        "head": {"kernel": numbers(8, 6)},
        "decoder": {"output": {"kernel": numbers(8, 6)}, "Conv_0": {"patches": {"kernel": numbers(8, 6)}}},
        "down": {"kernel": numbers(4, 4, 3, 8)},
        "part": {"kernel": numbers(8, 6), "embedding": numbers(8, 6), "bias": numbers(6)},
        "mine": {"kernel": numbers(8, 6)},
    }
    params = as_float32(params)
    changes = {"lr_multipliers": {"part": 0.1}}
    exclude = (*Optim().muon_exclude, "mine")
    (found,) = updates_of(params, [params], muon=MUON, muon_exclude=exclude, **changes)
    (plain,) = updates_of(params, [params], **changes)
    kernel = found["part"].pop("kernel")
    assert not np.allclose(kernel, plain["part"].pop("kernel"), atol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    (expected,) = expected_updates([np.float64(params["part"]["kernel"])], 0.0, numbers(8, 6))
    np.testing.assert_allclose(kernel, 0.1 * expected, rtol=1e-5, atol=1e-5)
