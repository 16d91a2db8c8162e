"""A step over micro-batches: what moves, moves once; what does not keeps its bits; each draws its own dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from t2i_jax.loop.state import State
from t2i_jax.loop.step import make_step


def test_what_does_not_move_keeps_its_bits_over_three_micro_batches():
    """A sum of three, divided by three, would not: many of these values would change."""
    config = ConfigDict({"seed": 0, "accumulate": 3, "ema": 0.9, "parallel": "jit", "fsdp": False, "batch_size": 6})
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    assert ((values + values + values) / np.float32(3) != values).any()

    def loss_fn(params, variables, batch, *, step, rngs, train):
        return jnp.sum(0.0 * params), (variables, {})

    optimizer = optax.sgd(0.1)
    state = State.create(jnp.array(values), {"kept": jnp.array(values)}, optimizer, 0.9)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    state = step.place(state)
    for _ in range(2):
        state, _ = step(state, {"x": np.arange(6, dtype=np.float32)})
    for kept in (state.variables["kept"], state.params, state.ema_params):
        np.testing.assert_array_equal(kept, values)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_averages_move_once_a_step_by_what_the_whole_batch_asks_for(accumulate):
    """0.9 of the past each step, not of each micro-batch."""
    ends = {}
    for k in (1, accumulate):
        config = ConfigDict(
            {"seed": 0, "accumulate": k, "ema": 0.0, "parallel": "jit", "fsdp": False, "batch_size": 8}
        )

        def loss_fn(params, variables, batch, *, step, rngs, train):
            return params * 0.0, ({"average": 0.9 * variables["average"] + 0.1 * batch["x"].mean()}, {})

        optimizer = optax.sgd(0.1)
        state = State.create(jnp.zeros(()), {"average": jnp.ones(())}, optimizer, 0.0)
        step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
        state = step.place(state)
        for _ in range(2):
            state, _ = step(state, {"x": np.arange(8, dtype=np.float32)})
        ends[k] = float(state.variables["average"])
    assert ends[1] == pytest.approx(0.81 + 0.19 * 3.5, abs=1e-6)
    assert ends[accumulate] == pytest.approx(ends[1], abs=1e-6)


def test_micro_batches_draw_their_own_dropout():
    config = ConfigDict({"seed": 0, "accumulate": 2, "ema": 0.0, "parallel": "jit", "fsdp": False, "batch_size": 4})

    def loss_fn(params, variables, batch, *, step, rngs, train):
        draw = jax.random.uniform(rngs["dropout"])
        return params * 0.0, ({"draws": variables["draws"].at[batch["x"][0]].set(draw)}, {})

    optimizer, seen = optax.sgd(0.1), []
    state = State.create(jnp.zeros(()), {"draws": jnp.zeros(2)}, optimizer, 0.0)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    state = step.place(state)
    for _ in range(3):
        state, _ = step(state, {"x": np.arange(4) % 2})
        seen += np.asarray(state.variables["draws"]).tolist()
    assert len(set(seen)) == 6
