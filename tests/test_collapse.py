"""From a codebook whose codes are all equal: k-means or random restarts end the collapse, and nothing else does.

With the functions that the task is made of, on the embedded digits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.evals.reconstruction import codebook_health
from t2i_jax.nn import codebooks
from t2i_jax.tasks import reconstruct

K, STEPS, EVERY, SIDE = 256, 160, 10, 16
OTHERS = [pytest.param(kind, marks=pytest.mark.long) for kind in ("gradient", "l2")]


@pytest.fixture(scope="module")
def images(data_dir):
    """Middles of training pictures."""
    config = load_config("vqvae:smoke")
    config.data.data_dir = str(data_dir)
    train = tasks.make(config).prepare(data_dir, {}).splits["train"]
    return jnp.stack([train[i]["image"][8 : 8 + SIDE, 8 : 8 + SIDE] for i in range(256)]).astype(jnp.float32) / 255


@functools.cache
def build(kind):
    config = load_config("vqvae:smoke")
    config.model.update({"codebook_size": K, "quantizer": kind, "image_size": SIDE, "residual_blocks": 0})
    config.model.downsampling = 2
    config.model.quantizer_options[kind].decay = 0.9  # a run of so few steps forgets faster
    model = tasks.make(config).model
    optimizer = optax.adam(1e-3)

    @jax.jit
    def train(params, variables, images, restart):
        def step(state, number):
            params, variables, moments = state
            key = jax.random.fold_in(jax.random.key(0), number)
            batch = {"image": jax.random.choice(key, images, (16,))}
            params, variables = jax.lax.cond(
                restart & (number % EVERY == 0),
                lambda p, v: reconstruct.restart_dead_codes(model, p, v, batch, key),
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

    return model, train


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ema", *OTHERS])
def test_either_remedy_ends_a_collapse_and_without_one_it_stays(kind, images):
    model, train = build(kind)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    params = variables.pop("params")
    averages, width = (
        variables["codebook"]["code"],
        model.apply({"params": params, **variables}, method="code_space_codebooks"),
    )
    equal = jnp.full((K, width["code"].shape[1]), 5.0)
    own, averages = codebooks.replace_codes(params.get("code", {}), averages, equal, jnp.full(K, 1 / K))
    params, variables = {**params, "code": own} if own else params, {"codebook": {"code": averages}}

    started = reconstruct.kmeans_codebooks(model, params, variables, images[:64], jax.random.key(1))

    def usage(state, restart):
        return codebook_health(np.asarray(train(*state, images, restart)), K)["usage"]

    assert usage((params, variables), False) < 0.1
    assert usage((params, variables), True) > 0.9
    assert usage(started, False) > 0.9
