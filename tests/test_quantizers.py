"""Every kind of quantizer: against hand-computed cases, against independent implementations, against collapse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.nn import codebooks, estimators, quantizers
from t2i_jax.nn.gumbel import GumbelQuantizer
from t2i_jax.nn.quantizers import CodebookQuantizer, make

PARITY = "comes with the extra `parity`"
K, D = 48, 6


def floats(values):
    return jnp.array(values, jnp.float32)


def normal(*shape, seed=0):
    return floats(np.random.default_rng(seed).normal(size=shape))


def start(quantizer, seed=0):
    return quantizer.init({"params": jax.random.key(seed), "dropout": jax.random.key(1)}, normal(1, 2, D))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "method"))
def apply(quantizer, variables, *inputs, **options):
    return quantizer.apply(variables, *inputs, rngs={"noise": jax.random.key(7)}, mutable=["codebook"], **options)[
        0
    ]


# --- what all kinds promise


@pytest.mark.parametrize("kind", quantizers.KINDS)
@pytest.mark.parametrize("train", [True, False])
def test_codes_are_rows_of_the_codebook_and_features_get_a_gradient(kind, train):
    quantizer, features = make(kind, K, D), normal(2, 7, D, seed=3)
    variables = start(quantizer)
    codes, ids, loss = apply(quantizer, variables, features, train=train)
    assert (codes.shape, ids.shape, loss.shape) == (features.shape, (2, 7), (2,))
    assert ids.dtype == jnp.int32
    assert ids.min() >= 0
    assert ids.max() < K
    codebook = apply(quantizer, variables, method="codebook")
    assert codebook.shape == (K, D)
    np.testing.assert_allclose(codes, codebook[ids], atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(apply(quantizer, variables, x, train=True).codes))(features)
    assert (np.abs(gradient).max(-1) > 0).all()


@pytest.mark.parametrize("kind", quantizers.KINDS)
def test_evaluation_draws_nothing_and_a_code_is_its_own_nearest(kind):
    quantizer = make(kind, K, D)
    variables = start(quantizer)
    once, again = (
        quantizer.apply(variables, normal(2, 7, D, seed=3), rngs={"noise": jax.random.key(seed)}).ids
        for seed in (1, 2)
    )
    np.testing.assert_array_equal(once, again)
    if kind in ("ema", "gradient", "rotation"):
        codebook = quantizer.apply(variables, method="codebook")
        np.testing.assert_array_equal(quantizer.apply(variables, codebook[None]).ids[0], np.arange(K))


def test_bad_kinds_and_depths():
    with pytest.raises(ValueError, match="quantizer 'vq' is unknown; choose ema, gradient, l2"):
        make("vq", K, D)
    with pytest.raises(ValueError, match="'fsq' has one code a feature vector; set residual_depth 2 to 1"):
        make("fsq", K, D, residual_depth=2)
    with pytest.raises(TypeError, match="decai"):
        make("ema", K, D, decai=0.9)


# --- gradients to the features


def test_straight_through():
    features, codes, gradient = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)
    out, backward = jax.vjp(estimators.straight_through, features, codes)
    np.testing.assert_allclose(out, codes, atol=1e-6)
    to_features, to_codes = backward(gradient)
    np.testing.assert_array_equal(to_features, gradient)
    np.testing.assert_array_equal(to_codes, 0)


def test_rotation_by_hand():
    """e = (2, 0), q = (0, 3): a quarter turn and a stretch by 1.5, whatever the gradient."""
    features, codes = floats([[2.0, 0.0]]), floats([[0.0, 3.0]])
    out, backward = jax.vjp(lambda x: estimators.rotate(x, codes), features)
    np.testing.assert_allclose(out, codes, atol=1e-6)
    turn = 1.5 * np.array([[0, -1], [1, 0]])
    for gradient in ([[1.0, 0.0]], [[0.0, 1.0]], [[-2.0, 5.0]]):
        np.testing.assert_allclose(backward(floats(gradient))[0], np.array(gradient) @ turn, atol=1e-5)


def test_rotation_keeps_angles_and_ends_at_the_codes():
    features, codes = normal(40, 5), normal(40, 5, seed=1)
    jacobians = jax.vmap(jax.jacobian(lambda x, q: estimators.rotate(x[None], q[None])[0]))(features, codes)
    np.testing.assert_allclose(estimators.rotate(features, codes), codes, atol=1e-5)
    scale = jnp.linalg.norm(codes, axis=-1) / jnp.linalg.norm(features, axis=-1)
    products = jnp.einsum("bij,bik->bjk", jacobians, jacobians) / scale[:, None, None] ** 2
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(5), products.shape), atol=1e-4)
    np.testing.assert_allclose(jnp.einsum("bij,bj->bi", jacobians, features), codes, atol=1e-4)


def test_rotation_equals_that_of_vector_quantize_pytorch():
    torch = pytest.importorskip("torch", reason=PARITY)
    theirs = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch", reason=PARITY)
    features, codes, gradient = normal(30, 7), normal(30, 7, seed=1), normal(30, 7, seed=2)
    x = torch.tensor(np.array(features), requires_grad=True)
    out = theirs.rotate_to(x, torch.tensor(np.array(codes)))
    out.backward(torch.tensor(np.array(gradient)))
    ours, backward = jax.vjp(lambda x: estimators.rotate(x, codes), features)
    np.testing.assert_allclose(ours, out.detach(), atol=1e-5)
    np.testing.assert_allclose(backward(gradient)[0], x.grad, atol=1e-5)


@pytest.mark.parametrize(
    ("e", "q"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 0.0], [-2.0, 0.0])]
)
def test_without_a_direction_rotation_is_straight_through(e, q):
    out, backward = jax.vjp(lambda x: estimators.rotate(x, floats([q])), floats([e]))
    np.testing.assert_allclose(out, [q], atol=1e-6)
    np.testing.assert_allclose(backward(floats([[3.0, -1.0]]))[0], [[3.0, -1.0]], atol=1e-6)


# --- codebooks moved by gradients, and of unit length


def test_losses_of_a_codebook_by_hand():
    """Features 1 and 3 by codes 0 and 4: (1 + 1) / 2 each way. Moved by averages, only the commitment counts."""
    features, codes = floats([[[1.0], [3.0]]]), floats([[0.0], [4.0]])
    learned = CodebookQuantizer(2, 1, learned=True, commitment=0.5)

    def loss(features, codes):
        variables = {"params": {"codes": codes}, "codebook": {"cluster_size": floats([0.5, 0.5])}}
        return learned.apply(variables, features).loss[0]

    value, (to_features, to_codes) = jax.value_and_grad(loss, argnums=(0, 1))(features, codes)
    assert float(value) == 1.5
    np.testing.assert_allclose(to_features[0, :, 0], [0.5 * 1, 0.5 * -1])
    np.testing.assert_allclose(to_codes[:, 0], [-1, 1])
    averages = {"codebook": codebooks.statistics_of(codes, floats([0.5, 0.5]))}
    assert float(CodebookQuantizer(2, 1, commitment=0.5).apply(averages, features).loss[0]) == 0.5


def test_learned_codes_equal_those_of_vector_quantize_pytorch():
    torch = pytest.importorskip("torch", reason=PARITY)
    theirs = pytest.importorskip("vector_quantize_pytorch", reason=PARITY)
    reference = theirs.VectorQuantize(
        D,
        K,
        learnable_codebook=True,
        ema_update=False,
        commitment_weight=1.0,
        commitment_use_cross_entropy_loss=False,
    ).train()
    codes, features = normal(K, D, seed=1), normal(3, 11, D, seed=2)
    with torch.no_grad():
        reference._codebook.embed.copy_(torch.tensor(np.array(codes))[None])
    _, their_ids, _ = reference(torch.tensor(np.array(features)))
    variables = {"params": {"codes": codes}, "codebook": {"cluster_size": jnp.full(K, 1 / K)}}
    np.testing.assert_array_equal(make("gradient", K, D).apply(variables, features).ids, their_ids.numpy())


def test_l2_looks_up_by_the_angle_alone():
    quantizer = make("l2", K, D, lookup_width=4)
    variables, features = start(quantizer), normal(2, 9, D, seed=3)
    ids = quantizer.apply(variables, features).ids
    np.testing.assert_array_equal(quantizer.apply(variables, 50 * features).ids, ids)
    x = np.asarray(features) @ np.asarray(variables["params"]["down"]["kernel"])
    table = np.asarray(variables["codebook"]["embedding_sum"] / variables["codebook"]["cluster_size"][:, None])
    cosines = (x / np.linalg.norm(x, axis=-1, keepdims=True)) @ (table / np.linalg.norm(table, axis=-1)[:, None]).T
    np.testing.assert_array_equal(ids, cosines.argmax(-1))
    np.testing.assert_allclose(
        np.linalg.norm(quantizer.apply(variables, method="code_space_codebook"), axis=-1), 1, rtol=1e-5
    )


# --- Gumbel-softmax


def test_gumbel_draws_codes_as_often_as_the_logits_say():
    quantizer = GumbelQuantizer(3, D)
    variables = start(quantizer)
    variables["params"]["logits"]["bias"] = jnp.log(floats([0.6, 0.3, 0.1]))
    ids = apply(quantizer, variables, jnp.zeros((1, 20_000, D)), train=True).ids
    np.testing.assert_allclose(np.bincount(ids[0]) / 20_000, [0.6, 0.3, 0.1], atol=0.015)
    assert (apply(quantizer, variables, jnp.zeros((1, 5, D))).ids == 0).all()


def test_gumbel_loss_is_the_divergence_from_uniform_codes():
    quantizer = GumbelQuantizer(3, D, kl_weight=2.0)
    variables = start(quantizer)
    p = np.array([0.6, 0.3, 0.1])
    variables["params"]["logits"]["bias"] = jnp.log(floats(p))
    loss = apply(quantizer, variables, jnp.zeros((1, 5, D))).loss
    np.testing.assert_allclose(loss, [2 * np.sum(p * np.log(p / (1 / 3)))], rtol=1e-5)


def test_gumbel_equals_the_gumbel_softmax_of_torch_on_the_same_noise():
    torch = pytest.importorskip("torch", reason=PARITY)
    quantizer, features = GumbelQuantizer(K, D, temperature=0.7), normal(1, 8, D)
    variables = start(quantizer)
    upstream = normal(1, 8, D, seed=5)
    codes, backward = jax.vjp(lambda x: apply(quantizer, variables, x, train=True).codes, features)
    x = torch.tensor(np.array(features), requires_grad=True)
    kernel, bias = (torch.tensor(np.array(variables["params"]["logits"][name])) for name in ("kernel", "bias"))
    key = quantizer.apply(
        variables, method=lambda module: module.make_rng("noise"), rngs={"noise": jax.random.key(7)}
    )
    noise = torch.tensor(np.array(jax.random.gumbel(key, (1, 8, K))))
    soft = torch.softmax((x @ kernel + bias + noise) / 0.7, -1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), K) - soft.detach() + soft
    theirs = hard @ torch.tensor(np.array(variables["params"]["codes"]))
    theirs.backward(torch.tensor(np.array(upstream)))
    np.testing.assert_allclose(codes, theirs.detach(), atol=1e-5)
    np.testing.assert_allclose(backward(upstream)[0], x.grad, atol=1e-5)


# --- collapse: all codes equal at the start
