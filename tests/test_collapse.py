"""From a codebook whose codes are all equal: k-means start or revival ends the collapse, and nothing else does.

With the parts that train.py calls: the task's start, loss and upkeep, on the embedded digits.
"""

import functools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import models
from t2i_jax.config import load_config
from t2i_jax.evals.reconstruction import codebook_health
from t2i_jax.nn import codebooks
from t2i_jax.tasks import reconstruct

K, STEPS, EVERY, SIDE = 256, 160, 10, 16


@pytest.fixture(scope="module")
def images(data_dir):
    """Middles of training pictures."""
    config = load_config("vqvae:smoke")
    config.data.data_dir = str(data_dir)
    train = reconstruct.inputs(config)[0]["train"]
    return jnp.stack([train[i]["image"][8 : 8 + SIDE, 8 : 8 + SIDE] for i in range(256)]).astype(jnp.float32) / 255


@functools.cache
def build(kind):
    config = load_config("vqvae:smoke")
    config.model.update({"codebook_size": K, "quantizer": kind, "image_size": SIDE, "residual_blocks": 0})
    config.model.downsampling = 2
    config.model.quantizer_options[kind].decay = 0.9  # a run of so few steps forgets faster
    model = models.build(config)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def train(params, variables, images, revive):
        def step(state, number):
            params, variables, moments = state
            key = jax.random.fold_in(jax.random.key(0), number)
            batch = {"image": jax.random.choice(key, images, (16,))}
            params, variables = jax.lax.cond(
                revive & (number % EVERY == 0),
                lambda p, v: reconstruct.upkeep(model, p, v, batch, key),
                lambda p, v: (p, v),
                *(params, variables),
            )
            gradient, (variables, _) = jax.grad(
                lambda p: reconstruct.loss_fn(
                    model, p, variables, batch, step=0, rngs={}, train=True, foreground_weight=2.0
                ),
                has_aux=True,
            )(params)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), variables, moments), None

        state = params, variables, optimizer.init(params)
        (params, variables, _), _ = jax.lax.scan(step, state, jnp.arange(1, STEPS + 1))
        return model.apply({"params": params, **variables}, images, method="tokenize")

    return config, model, train


@pytest.mark.parametrize("kind", ["ema", "gradient", "l2"])
def test_either_remedy_ends_a_collapse_and_without_one_it_stays(kind, images, monkeypatch):
    config, model, train = build(kind)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    params = variables.pop("params")
    averages, width = variables["codebook"]["code"], model.apply({"params": params, **variables}, method="tables")
    equal = jnp.full((K, width["code"].shape[1]), 5.0)
    own, averages = codebooks.place(params.get("code", {}), averages, equal, jnp.full(K, 1 / K))
    params, variables = {**params, "code": own} if own else params, {"codebook": {"code": averages}}

    pictures = [{"image": image} for image in np.uint8(images * 255 + 0.5)]
    monkeypatch.setattr(reconstruct, "inputs", lambda config: ({"train": grain.MapDataset.source(pictures)}, None))
    config.kmeans_examples = 64
    started = reconstruct.start(model, params, variables, config, jax.random.key(1))

    def usage(state, revive):
        return codebook_health(np.asarray(train(*state, images, revive)), K)["usage"]

    assert usage((params, variables), False) < 0.1
    assert usage((params, variables), True) > 0.9
    assert usage(started, False) > 0.9
