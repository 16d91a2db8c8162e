"""Layers that are computed again in the backward pass, or written out, are the same layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from jax.extend.core import jaxprs_in_params

from t2i_jax.models.translator import Model
from t2i_jax.nn.stack import REMAT, Stack

KINDS = [(remat, unroll) for remat in REMAT for unroll in (0, 2)]


def assert_close(tolerance, expected, found):
    """Within a part of an array's largest value; that of key biases is 0 but for rounding."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(jnp.abs(expected).max()) + 1e-7)


def recomputes(jaxpr):
    """Whether products are computed again; an MLP's activation is in any case."""
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            again = equation.primitive.name in ("remat2", "checkpoint") and "dot_general" in str(inner)
            if again or recomputes(inner):
                return True
    return False


@pytest.mark.slow
def test_remat_and_unrolling_change_neither_parameters_nor_gradients():
    """Without dropout, whose masks it does change."""
    rng = np.random.default_rng(0)
    x, memory = (jnp.array(rng.normal(size=(2, length, 12)), "f4") for length in (4, 3))
    inputs = x, None, memory, jnp.array([[True, True, False], [True, True, True]])
    found = []
    for remat, unroll in KINDS:
        stack = Stack(2, 12, 2, 16, "gelu", cross=True, remat=remat, unroll=unroll)
        params = jax.jit(stack.init)(jax.random.key(0), *inputs)["params"]

        def loss(params, stack=stack):
            return jnp.sum(jnp.sin(stack.apply({"params": params}, *inputs, train=True)[0]))

        grad = jax.jit(jax.grad(loss)).trace(params)
        assert recomputes(grad.jaxpr.jaxpr) == (remat != "none")
        found.append((params, grad.lower().compile()(params)))
    for number, (params, grads) in enumerate(found):
        jax.tree.map(np.testing.assert_array_equal, found[0][0], params)
        # Rematerialised they are the same sums, rounded as XLA fuses them; written out, it adds in another order.
        jax.tree.map(functools.partial(assert_close, 1e-6), found[number % 2][1], grads)
        jax.tree.map(functools.partial(assert_close, 2e-6), found[0][1], grads)


@pytest.mark.slow
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_either_half_of_a_translator_can_be_told_to(half):
    """What it computes again, and that its layers are written out."""
    inputs = jnp.array([[1, 2, 3]]), jnp.array([[True, True, False]]), jnp.array([[4, 0, 2, 1]])
    fields = {"width": 12, "layers": 3, "heads": 2, "mlp_width": 16, "dropout": 0.0}

    def program(**options):
        halves = {"encoder": {"max_positions": 3}, "decoder": {"positions": 4}}
        halves[half] |= options
        halves = {name: FrozenDict(**fields, **own) for name, own in halves.items()}
        model = Model(codebook_size=4, num_tokens=4, text_vocab_size=8, text_len=3, **halves)
        shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)

        def loss(variables):
            return model.apply(variables, *inputs, train=True, rngs={"dropout": jax.random.key(1)}).sum()

        return jax.make_jaxpr(jax.grad(loss))(shapes).jaxpr

    assert not recomputes(program())
    assert recomputes(program(remat="full"))
    assert str(program()).count("unroll=1\n") < str(program(unroll=0)).count("unroll=1\n")
