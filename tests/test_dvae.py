"""The dVAE: tokens of logits, pictures of tokens, relaxed codes, and its loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import t2i_jax
from t2i_jax import files, losses, runs
from t2i_jax.config import load_config
from t2i_jax.models.dvae import Model, map_pixels, pixels_of, unmap_pixels
from t2i_jax.tasks import dvae

K = 11
SIZES = [{"groups": 4}, {"groups": 2, "blocks": 2}, {"groups": 1, "blocks": 3}]


def build(**fields):
    return Model(**{"codebook_size": K, "image_size": 16, "width": 8, "code_width": 5, "blocks": 1} | fields)


def pictures(count=2, height=16, width=16):
    """Blocks of one colour each: pooling would make all tokens of plain noise alike."""
    colours = np.random.default_rng(0).random((count, height // 8, width // 8, 3), np.float32)
    return jnp.array(colours.repeat(8, 1).repeat(8, 2))


@functools.cache
def start(model):
    """Variables from numpy: kernels of variance 2 / fan-in, biases that are not zero, codes that lie apart."""
    rng, shapes = np.random.default_rng(1), jax.eval_shape(model.init, jax.random.key(0), pictures())

    def draw(leaf):
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim == 4 else 0.5 if leaf.ndim == 2 else 0.1
        return jnp.array(rng.normal(0, scale, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model, variables, *inputs, **options):
    return model.apply(variables, *inputs, **options)


def test_pixels_are_mapped_and_back():
    np.testing.assert_allclose(map_pixels(jnp.array([0.0, 0.5, 1.0])), [0.1, 0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(unmap_pixels(jnp.array([0.1, 0.3, 0.9])), [0, 0.25, 1], atol=1e-6)
    np.testing.assert_array_equal(unmap_pixels(jnp.array([0.0, 1.0])), [0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("fields", SIZES)
def test_tokens_are_the_likeliest_codes_row_by_row(fields):
    model = build(**fields)
    patch = 2 ** (model.groups - 1)
    assert model.num_tokens == (16 // patch) ** 2
    images = pictures(2, 16, 24)
    logits = np.asarray(apply(model, start(model), images, method="encode"))
    assert logits.shape == (2, 16 // patch, 24 // patch, K)
    ids = apply(model, start(model), images, method="tokenize")
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, logits.argmax(-1).reshape(2, -1))
    assert len(np.unique(ids)) > 1


def test_a_token_is_made_of_what_lies_around_it():
    """A change at the right end of a long picture reaches the tokens near it, and those alone."""
    model = build(groups=2)
    images = pictures(1, 8, 64)
    changed = images.at[:, :, -1].set(1 - images[:, :, -1])
    one, other = (apply(model, start(model), x, method="encode") for x in (images, changed))
    moved = np.abs(np.asarray(one - other)).max((0, 1, 3)) > 1e-6
    assert moved[-1]
    assert not moved[: len(moved) // 2].any()


@pytest.mark.parametrize("fields", SIZES)
def test_ids_are_drawn_as_one_hot_codes_are(fields):
    model = build(**fields)
    variables = start(model)
    side = 16 // model.patch
    ids = np.random.default_rng(2).integers(0, K, (2, model.num_tokens))
    images = apply(model, variables, ids, method="detokenize")
    assert images.shape == (2, 16, 16, 3)
    one_hot = np.eye(K, dtype=np.float32)[ids].reshape(2, side, side, K)
    outputs = apply(model, variables, one_hot, method="decode")
    assert outputs.shape == (2, 16, 16, 6)
    expected = np.clip((1 / (1 + np.exp(-np.asarray(outputs)[..., :3])) - 0.1) / 0.8, 0, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert np.std(images) > 0.02


def test_the_codebook_is_what_the_decoder_reads_of_a_code():
    model = build()
    variables = start(model)
    codebook = apply(model, variables, method="codebook")
    assert codebook.shape == (K, 5)
    first, second = np.full((1, 4), 3), np.full((1, 4), 7)
    swapped = {"params": variables["params"] | {"codes": codebook.at[3].set(codebook[7]).at[7].set(codebook[3])}}
    draw = functools.partial(apply, model, method="detokenize")
    np.testing.assert_allclose(draw(swapped, first), draw(variables, second), atol=1e-6)
    assert np.abs(draw(variables, first) - draw(variables, second)).max() > 1e-3


def test_without_noise_the_call_is_the_tokenizer():
    model, images = build(), pictures()
    logits, codes, outputs = apply(model, start(model), images)
    ids = apply(model, start(model), images, method="tokenize")
    np.testing.assert_array_equal(codes.argmax(-1).reshape(2, -1), ids)
    np.testing.assert_array_equal(np.unique(codes), [0, 1])
    assert logits.shape == codes.shape == (2, 2, 2, K)
    np.testing.assert_allclose(pixels_of(outputs), apply(model, start(model), ids, method="detokenize"), atol=1e-5)


def test_relaxed_codes_follow_the_softmax_and_harden_as_the_temperature_falls():
    model, images = build(), pictures(1)
    variables = start(model)

    @jax.jit
    def draw(temperature):
        keys = jax.random.split(jax.random.key(3), 3000)
        return jax.vmap(lambda key: model.apply(variables, images, temperature=temperature, noise=key)[1])(keys)

    shares = jax.nn.softmax(apply(model, variables, images, method="encode"))
    soft, hard = draw(1.0), draw(0.02)
    for codes in (soft, hard):
        np.testing.assert_allclose(codes.sum(-1), 1, atol=1e-4)
        frequency = jax.nn.one_hot(codes.argmax(-1), K).mean(0)
        np.testing.assert_allclose(frequency, shares, atol=0.04)  # Gumbel-max: 4 standard errors
    assert soft.max(-1).mean() < 0.9
    assert hard.max(-1).mean() > 0.97


def test_bfloat16_computes_while_parameters_logits_and_outputs_stay_float32():
    exact, model, images = build(), build(dtype="bfloat16"), pictures()
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    ours, theirs = (apply(m, start(exact), images) for m in (model, exact))
    assert {x.dtype for x in ours} == {jnp.dtype("float32")}
    difference = np.abs(ours[0] - theirs[0]).max() / np.abs(theirs[0]).max()
    assert 1e-4 < difference < 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 20}, "image_size 20 is not divisible by 8"),
        ({"image_size": 15, "groups": 2}, "image_size 15 is not divisible by 2"),
        ({"width": 6}, "width 6 is not divisible by 4"),
    ],
)
def test_sizes_that_do_not_fit(fields, said):
    model = build(**fields)
    side = model.image_size
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), pictures(1, side, side))


# --- training

LOSS = {"temperature": 0.25, "temperature_steps": 10, "kl_weight": 6.0, "kl_steps": 4}


def loss_of(model, variables, step, *, train=True, seed=5):
    return jax.jit(
        lambda params: dvae.loss_fn(
            model, params, {}, {"image": pictures()}, step=step,
            rngs={"noise": jax.random.key(seed)} if train else {}, train=train, **LOSS,
        )
    )(variables["params"])  # fmt: skip


def test_the_loss_is_the_likelihood_and_the_weighted_divergence():
    model = build()
    variables = start(model)
    for step, weight in ((0, 0.0), (1, 1.5), (9, 6.0)):
        loss, (after, metrics) = loss_of(model, variables, step, train=False)
        logits, _, outputs = apply(model, variables, pictures())
        likelihood = losses.logit_laplace(outputs[..., :3], outputs[..., 3:], map_pixels(pictures())).mean()
        shares = np.asarray(jax.nn.softmax(logits), np.float64)
        divergence = (shares * np.log(shares * K)).sum() / 2  # a picture
        assert metrics["kl_weight"] == pytest.approx(weight)
        assert float(metrics["divergence"]) == pytest.approx(divergence / 4, rel=1e-4)
        assert float(loss) == pytest.approx(float(likelihood) + weight * divergence / (16 * 16 * 3), rel=1e-4)
        assert after == {}


@pytest.mark.slow
def test_the_temperature_falls_and_the_noise_is_the_steps_own():
    model = build()
    variables = start(model)
    values = {step: loss_of(model, variables, step)[1][1] for step in (0, 5, 10, 99)}
    taus = [float(values[step]["temperature"]) for step in values]
    assert taus == pytest.approx([1, 0.625, 0.25, 0.25])
    psnrs = [float(loss_of(model, variables, 0, seed=seed)[1][1]["psnr"]) for seed in (5, 5, 6)]
    assert psnrs[0] == psnrs[1] != psnrs[2]


@pytest.mark.slow
def test_gradients_reach_every_parameter():
    model = build(width=32)  # narrow ones have units that no picture wakes
    variables = start(model)
    gradients = jax.jit(
        jax.grad(
            lambda params: dvae.loss_fn(
                model, params, {}, {"image": pictures()}, step=2,
                rngs={"noise": jax.random.key(0)}, train=True, **LOSS,
            )[0]
        )
    )(variables["params"])  # fmt: skip
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


@pytest.mark.slow
def test_predictions_are_reconstructions_from_tokens():
    model, images = build(), pictures()
    variables = start(model)
    predicted = dvae.Task.predict(model, variables["params"], {}, {"image": images})
    ids = apply(model, variables, images, method="tokenize")
    np.testing.assert_array_equal(predicted["ids"], ids)
    np.testing.assert_allclose(predicted["image"], apply(model, variables, ids, method="detokenize"), atol=1e-6)


@pytest.mark.slow
def test_a_run_is_trained_and_opened(smoke):
    run = smoke.run("dvae")
    assert {"psnr", "usage", "perplexity"} <= set(files.read_json(run / runs.SCORES))
    tokenizer = t2i_jax.load(run)
    assert (tokenizer.codebook_size, tokenizer.num_tokens) == (64, 64)
    ids = tokenizer.tokenize(np.asarray(pictures(3, 32, 32)))
    assert tokenizer.detokenize(ids).shape == (3, 32, 32, 3)
    assert tokenizer.codebook.shape == (64, load_config("dvae:smoke").model.code_width)


@pytest.mark.slow
def test_gradients_are_numbers():
    """The gradient of `jnp.max` between two groups is none where XLA computes the block before it twice."""
    config, model = load_config("dvae:openai"), build(groups=3)

    def loss_fn(params):
        batch = {"image": jnp.array(np.random.default_rng(0).random((4, 16, 16, 3), np.float32))}
        rngs = {"noise": jax.random.key(0)}
        return dvae.loss_fn(model, params, {}, batch, step=0, rngs=rngs, train=True, **config.loss)[0]

    params = jax.jit(model.init)(jax.random.key(0), pictures())["params"]
    grads = jax.jit(jax.grad(loss_fn))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
