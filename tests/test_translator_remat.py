"""A translator whose layers are computed again in the backward pass, or written out, is the same translator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from t2i_jax.models.translator import Model


def assert_close(tolerance, expected, found):
    """Within a part of an array's largest value; that of key biases is 0 but for rounding."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(jnp.abs(expected).max()) + 1e-7)


def test_remat_and_unrolling_change_neither_parameters_nor_gradients():
    """Without dropout, whose masks it does change."""
    fields = {"width": 12, "layers": 3, "heads": 2, "mlp_width": 16, "dropout": 0.0}
    inputs = jnp.array([[1, 2, 3]]), jnp.array([[True, True, False]]), jnp.array([[4, 0, 2, 1]])
    found = []
    kinds = [(remat, unroll) for remat in ("none", "full", "dots") for unroll in (0, 9)]
    for remat, unroll in kinds:
        halves = {
            "encoder": FrozenDict(**fields, max_positions=3, remat=remat, unroll=unroll),
            "decoder": FrozenDict(**fields, positions=4, remat=remat, unroll=unroll),
        }
        model = Model(codebook_size=4, num_tokens=4, text_vocab_size=8, text_len=3, **halves)
        params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]

        def loss(params, model=model):
            logits = model.apply({"params": params}, *inputs, train=True, rngs={"dropout": jax.random.key(1)})
            return jnp.sum(jnp.sin(logits))

        grad = jax.jit(jax.grad(loss)).trace(params)
        found.append((params, grad.lower().compile()(params), str(grad.jaxpr)))
    for number, (params, grads, _) in enumerate(found):
        jax.tree.map(np.testing.assert_array_equal, found[0][0], params)
        # Rematerialised they are the same sums, rounded as XLA fuses them; written out, it adds in another order.
        jax.tree.map(functools.partial(assert_close, 1e-6), found[number % 2][1], grads)
        jax.tree.map(functools.partial(assert_close, 2e-6), found[0][1], grads)
    computed_again = ["remat" in program or "checkpoint" in program for *_, program in found]
    assert computed_again == [remat != "none" for remat, _ in kinds]
