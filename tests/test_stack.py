"""The one transformer: prefill, unstacking, masks a layer, attention with nowhere to look, float32 heads."""

import dataclasses
import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_batch, fake_variables
from flax.traverse_util import flatten_dict

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.models import clip
from t2i_jax.nn import attention
from t2i_jax.nn.attention import KeyValue, attend, causal_mask
from t2i_jax.nn.dense import MLP, Head
from t2i_jax.nn.products import float32_product
from t2i_jax.nn.stack import FEW, Stack, unstack

B, N, S, D = 3, 9, 5, 16
STACK = Stack(3, D, 4, 24, "gelu", cross=True)
SCANNED_AND_WRITTEN_OUT = pytest.mark.parametrize("unroll", [0, FEW])


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    memory_mask = jnp.arange(S) < jnp.array([5, 2, 1])[:, None]
    return jnp.array(rng.normal(size=(B, N, D)), "f4"), jnp.array(rng.normal(size=(B, S, D)), "f4"), memory_mask


def random_like(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.array(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


@pytest.fixture(scope="module")
def params():
    x, memory, memory_mask = inputs()
    return random_like(jax.eval_shape(STACK.init, jax.random.key(0), x, None, memory, memory_mask)["params"])


@SCANNED_AND_WRITTEN_OUT
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_prefill_and_single_steps_give_the_states_of_the_whole_sequence(params, cut, unroll):
    x, memory, memory_mask = inputs()
    whole, none = STACK.clone(unroll=unroll).apply({"params": params}, x, None, memory, memory_mask)
    assert none is None
    one_by_one = unstack(params)
    apply = jax.jit(lambda *args, **kwargs: STACK.apply({"params": one_by_one}, *args, **kwargs))
    cache = STACK.apply({"params": one_by_one}, B, N, memory, memory_mask, method="init_cache")
    states, cache = apply(x[:, :cut], cache=cache)
    found = [states]
    for position in range(cut, N):
        states, cache = apply(x[:, position : position + 1], cache=cache, position=position)
        found.append(states)
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, rtol=0, atol=4e-6)


@SCANNED_AND_WRITTEN_OUT
def test_unstacked_params_are_the_same_function(params, unroll):
    x, memory, memory_mask = inputs()
    stack = STACK.clone(unroll=unroll)
    program = jax.make_jaxpr(stack.apply)({"params": params}, x, None, memory, memory_mask)
    assert [e.params["unroll"] for e in program.eqns if e.primitive.name == "scan"] == [1 if unroll == 0 else 3]
    both = [stack.apply({"params": p}, x, None, memory, memory_mask)[0] for p in (params, unstack(params))]
    np.testing.assert_allclose(*both, rtol=0, atol=4e-6)
    assert set(unstack(params)) == {"layers_0", "layers_1", "layers_2"}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_an_mlp_keeps_two_arrays_of_its_inner_width_for_the_backward_pass(activation):
    """The activation's input and its output, which are factors of the two products; as it is, a GELU keeps more."""
    mlp, x = MLP(24, activation), inputs()[0]
    params = mlp.init(jax.random.key(0), x)
    _, backward = jax.vjp(mlp.apply, params, x)
    kept = [leaf.shape for leaf in jax.tree.leaves(backward)]
    assert kept.count((B, N, 24)) == 2


@SCANNED_AND_WRITTEN_OUT
def test_each_layer_starts_differently_and_has_its_own_dropout(unroll):
    stack, x = Stack(2, D, 4, 24, "relu", dropout=0.5, unroll=unroll), inputs()[0]
    params = stack.init(jax.random.key(0), x)["params"]
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert jnp.abs(kernel[0] - kernel[1]).max() > 0.01
    # Of biases of 1 and 100 alone: what they add says which of the two was dropped.
    biases = jax.tree.map(jnp.zeros_like, params)
    biases["layers"]["mlp"]["down"]["bias"] += jnp.array([[1.0], [100.0]])
    added = stack.apply({"params": biases}, x, train=True, rngs={"dropout": jax.random.key(3)})[0] - x
    second = added > 100
    first = added - 200 * second > 1
    np.testing.assert_allclose(added, 2 * first + 200 * second, rtol=0, atol=1e-4)
    assert 0.4 < jnp.mean(first != second) < 0.6


@SCANNED_AND_WRITTEN_OUT
def test_every_layer_may_have_a_mask_of_its_own(params, unroll):
    stack = STACK.clone(unroll=unroll)
    x, memory, memory_mask = inputs()
    causal, alone = causal_mask(N, N), jnp.eye(N, dtype=bool)[None, None]
    masks = jnp.stack([alone, alone, causal])
    found, _ = stack.apply({"params": params}, x, masks, memory, memory_mask)
    other = stack.apply({"params": params}, x, masks[::-1], memory, memory_mask)[0]
    assert jnp.abs(found - other).max() > 1e-3
    one_by_one = stack.apply({"params": unstack(params)}, x, masks, memory, memory_mask)[0]
    np.testing.assert_allclose(found, one_by_one, rtol=0, atol=4e-6)


def test_a_query_that_may_look_nowhere_gets_the_mean_of_the_values():
    rng = np.random.default_rng(0)
    query, key, value = (jnp.array(rng.normal(size=(6, 4, 5)), "f4") for _ in range(3))
    mask = jnp.tril(jnp.ones((4, 4), bool))[None, None].at[..., 1, :].set(False)
    out = attend(query, KeyValue(key, value), mask, 3).reshape(2, 4, 3, 5)
    value = value.reshape(2, 3, 4, 5)
    np.testing.assert_allclose(out[:, 1], value.mean(2), rtol=0, atol=4e-7)
    np.testing.assert_allclose(out[:, 0], value[:, :, 0], rtol=0, atol=4e-7)


FIRST = (jnp.arange(6) < jnp.array([4, 6, 1])[:, None])[:, None, None]  # keys that all queries of a row may see
EVERY_OTHER = (jnp.arange(6) % 2 == 0)[None, None, None] & jnp.eye(6, dtype=bool)[None, None]


@pytest.mark.parametrize(
    ("mask", "size", "dtype", "fused"),
    [
        (None, 8, "bfloat16", True),
        (FIRST, 8, "bfloat16", True),
        (EVERY_OTHER, 8, "bfloat16", False),
        (None, 8, "float32", False),
        (None, 12, "bfloat16", False),
    ],
)
def test_what_goes_through_the_fused_kernel_of_gpus_comes_out_alike(monkeypatch, mask, size, dtype, fused):
    """Here by jax's own attention under the kernel's arguments; benchmarks/results.md has it on a GPU."""
    rng = np.random.default_rng(0)
    query, key, value = (jnp.array(rng.normal(size=(6, 6, size)), dtype) for _ in range(3))
    plain, asked = attend(query, KeyValue(key, value), mask, 2), []

    def stand_in(*arrays, implementation, plain=jax.nn.dot_product_attention, **fields):
        asked.append(implementation)
        return plain(*arrays, **fields)

    monkeypatch.setattr(attention, "_has_flash", lambda: True)
    monkeypatch.setattr(attention.jax.nn, "dot_product_attention", stand_in)
    out = attend(query, KeyValue(key, value), mask, 2)
    assert asked == ["cudnn"] * fused
    np.testing.assert_allclose(out.astype("f4"), plain.astype("f4"), rtol=0, atol=0.02)
    attend(query, KeyValue(key, value), mask, 2, lambda weights, rng: weights, jax.random.key(0))
    attend(query[:, :1], KeyValue(key, value), FIRST, 2)
    assert len(asked) == fused  # neither with dropout nor for a single query


def equations_of(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations_of(inner)


@pytest.mark.parametrize("name", ["translator:smoke", "translator:transformer", "dalle:smoke", "prior:smoke"])
def test_gradients_of_embeddings_are_summed_in_float32(name):
    """Sums of ones end at 256 in bfloat16."""
    task = tasks.make(load_config(name, ["--config.model.dtype=bfloat16"]))
    batch = jax.tree.map(jnp.asarray, fake_batch(task, 2))
    params = jax.eval_shape(task.init, jax.random.key(0), batch)["params"]
    rngs = {"dropout": jax.random.key(0)}

    def loss(params):
        return task.phases()[0].loss_fn(params, {}, batch, step=0, rngs=rngs, train=True)[0]

    sums = [
        equation.outvars[0].aval
        for equation in equations_of(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
        if equation.primitive.name == "scatter-add"
    ]
    tables = [x.shape for path, x in flatten_dict(params).items() if path[-1] == "embedding"]
    assert {aval.shape for aval in sums} >= set(tables)
    assert {aval.dtype.name for aval in sums} == {"float32"}


@pytest.mark.parametrize("field", ["norm", "remat"])
def test_fields_that_it_does_not_know(field):
    with pytest.raises(ValueError, match=f"{field} 'both' is unknown; choose"):
        dataclasses.replace(STACK, **{field: "both"}).init(jax.random.key(0), inputs()[0])


def test_logits_of_bfloat16_are_summed_in_float32():
    """Rounded to bfloat16, 8,192 logits would take 1,700 values."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 768)).astype("f4"), rng.normal(size=(768, 8192)).astype("f4")
    logits = Head(8192, dtype="bfloat16").apply({"params": {"kernel": jnp.asarray(kernel)}}, jnp.asarray(x))
    assert logits.dtype == jnp.float32
    assert len(np.unique(logits)) > 8100
    exact = (np.asarray(a, jnp.bfloat16).astype("f8") for a in (x, kernel))
    np.testing.assert_allclose(logits, np.matmul(*exact), rtol=0, atol=2e-4)


def test_gradients_of_a_float32_head_have_the_types_of_its_inputs():
    x, kernel = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 3))
    grads = jax.grad(lambda x, kernel: float32_product(x, kernel, "bfloat16").sum(), (0, 1))(x, kernel)
    assert [grad.dtype for grad in grads] == [jnp.bfloat16, jnp.float32]


def test_gradients_of_a_bfloat16_head_are_products_of_rounded_factors():
    rng = np.random.default_rng(0)
    x, kernel, gradient = (rng.normal(size=size).astype("f4") for size in ((2, 3, 5), (5, 7), (2, 3, 7)))
    _, pull = jax.vjp(lambda *factors: float32_product(*factors, "bfloat16"), jnp.array(x), jnp.array(kernel))
    x, kernel, gradient = (np.asarray(a, jnp.bfloat16).astype("f4") for a in (x, kernel, gradient))
    expected = gradient @ kernel.T, np.einsum("bnd,bnk->dk", x, gradient)
    for found, exact in zip(pull(jnp.array(gradient)), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def test_features_of_clip_in_bfloat16_are_not_rounded_to_it():
    tower = {"width": 8, "heads": 2, "mlp_width": 8, "layers": 1}
    model = clip.Model(64, {**tower, "image_size": 8, "patch_size": 8}, {**tower, "positions": 4}, "bfloat16")
    images, ids = jnp.ones((2, 8, 8, 3)), jnp.array([[1, 49407]])
    variables = fake_variables(jax.eval_shape(model.init, jax.random.key(0), images, ids))
    features = jax.jit(functools.partial(model.apply, method="encode_images"))(variables, images)
    assert (features != features.astype(jnp.bfloat16)).mean() > 0.9


@pytest.mark.parametrize("name", ["translator", "transformer", "dalle", "pixelcnn"])
def test_models_share_one_interface(name):
    method = importlib.import_module(f"t2i_jax.models.{name}").Model.__call__
    assert list(inspect.signature(method).parameters)[:5] == ["self", "text_ids", "text_mask", "ids", "null"]
