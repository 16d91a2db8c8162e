"""The VQ-VAE over a grid: shapes, the order of tokens, and every kind of quantizer in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fakes import fake_variables
from flax.core import FrozenDict

from t2i_jax.models.vqvae import Model
from t2i_jax.nn import quantizers
from t2i_jax.tasks import reconstruct

K = 48


def build(**fields):
    fields = {"codebook_size": K, "image_size": 16, "width": 16, "code_width": 8, "residual_blocks": 1} | fields
    return Model(**fields)


def pictures(count=3, side=16, channels=3, seed=0):
    return jnp.array(np.random.default_rng(seed).random((count, side, side, channels), np.float32))


def start(model):
    """Made-up values: initialising compiles for seconds."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    images = pictures(1, model.image_size, model.channels)
    return jax.tree.map(jnp.asarray, fake_variables(jax.eval_shape(model.init, keys, images)))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method",))
def apply(model, variables, *inputs, **options):
    return model.apply(variables, *inputs, **options)


@pytest.mark.parametrize(("side", "channels", "downsampling"), [(28, 1, 4), (24, 3, 2), (32, 3, 32)])
def test_shapes(side, channels, downsampling):
    model = build(image_size=side, channels=channels, downsampling=downsampling)
    images = pictures(2, side, channels)
    variables = start(model)
    reconstructions, loss, ids = apply(model, variables, images)
    count = (side // downsampling) ** 2
    assert model.layout == (("code", side // downsampling, side // downsampling, 1, 0, K),)
    assert (reconstructions.shape, loss.shape, ids.shape) == (images.shape, (2,), (2, count))
    assert model.num_tokens == count
    assert apply(model, variables, method="codebook").shape == (K, 8)
    assert apply(model, variables, ids, method="detokenize").shape == images.shape


def test_detokenize_gives_the_reconstruction_clipped():
    model, images = build(), pictures()
    variables = start(model)
    reconstructions, _, ids = apply(model, variables, images)
    np.testing.assert_array_equal(apply(model, variables, images, method="tokenize"), ids)
    back = apply(model, variables, ids, method="detokenize")
    np.testing.assert_allclose(back, np.clip(reconstructions, 0, 1), atol=1e-5)


def test_tokens_stand_row_by_row():
    """A change in one corner of a picture reaches tokens near it alone."""
    model, images = build(image_size=64, residual_blocks=0), np.array(pictures(1, 64))
    variables = start(model)
    ids = apply(model, variables, jnp.array(images), method="encode")["code"]
    images[0, :4, -4:] = 1 - images[0, :4, -4:]
    changed = np.abs(apply(model, variables, jnp.array(images), method="encode")["code"] - ids).max(-1) > 1e-6
    rows, columns = np.nonzero(changed.reshape(16, 16))
    assert 0 in rows
    assert 15 in columns
    assert rows.max() <= 2
    assert columns.min() >= 13


@pytest.mark.parametrize("kind", quantizers.KINDS)
def test_every_kind_of_quantizer_trains(kind):
    """Thirty steps on one batch: the loss falls, encoder and codes move, and a codebook reset keeps shapes."""
    model, images = build(quantizer=kind), pictures(8)
    variables = start(model)
    params, optimizer = variables.pop("params"), optax.adam(1e-2)

    @jax.jit
    def step(params, variables, moments, number):
        def loss(params):
            return reconstruct.loss_fn(
                model,
                params,
                variables,
                {"image": images},
                step=number,
                rngs={name: jax.random.key(number) for name in ("dropout", "noise")},
                train=True,
                foreground_weight=1.0,
            )

        (_, (variables, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), variables, moments, gradient, metrics

    restart = jax.jit(functools.partial(reconstruct.restart_dead_codes, model))
    params, variables = restart(params, variables, {"image": images}, jax.random.key(2))
    before = apply(model, {"params": params, **variables}, method="codebook")
    decibels, moments = [], optimizer.init(params)
    for number in range(30):
        params, variables, moments, gradient, metrics = step(params, variables, moments, number)
        decibels.append(float(metrics["psnr"]))
        if number == 0:
            assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient["to_codes"])), kind
    assert np.mean(decibels[-5:]) > np.mean(decibels[:5]) + 0.2
    assert np.abs(apply(model, {"params": params, **variables}, method="codebook") - before).max() > 1e-4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"downsampling": 3}, "downsampling 3 is not among"),
        ({"image_size": 18}, "image_size 18 is not divisible by 4;"),
        ({"quantizer": "vq"}, "quantizer 'vq' is unknown"),
        ({"quantizer": "fsq", "codebook_size": 11}, "codebook_size 11 is no product"),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    model = build(**fields)
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), pictures(side=model.image_size))


def test_options_reach_the_quantizer():
    model = build(quantizer="l2", quantizer_options=FrozenDict({"l2": {"lookup_width": 3}}))
    assert apply(model, start(model), pictures(), method="code_space_features")["code"].shape == (3, 16, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_sizes_by_shape(dtype):
    model = Model(codebook_size=8192, image_size=256, downsampling=8, width=256, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = jax.eval_shape(lambda v, x: model.apply(v, x), variables, images)
    assert [x.shape for x in out] == [(2, 256, 256, 3), (2,), (2, 1024)]
    assert out[0].dtype == jnp.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_a_resnet_as_encoder_by_shape(channels):
    """Cut after its first stage: 4 pixels a token; frozen, it gets no gradient and keeps its statistics."""
    model = build(image_size=32, channels=channels, encoder="resnet", backbone=FrozenDict(depth=50, stage=1))
    images = jax.ShapeDtypeStruct((2, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(variables["params"]["features"]) == set(variables["batch_stats"]["features"]) == {"resnet"}
    out = jax.eval_shape(lambda v, x: model.apply(v, x), variables, images)
    assert [x.shape for x in out] == [(2, 32, 32, channels), (2,), (2, 64)]
    with pytest.raises(ValueError, match=r"downsampling 4 is not the 8 pixels a token that backbone.stage 2 gives"):
        jax.eval_shape(build(encoder="resnet", backbone=FrozenDict(stage=2)).init, jax.random.key(0), images)
    with pytest.raises(ValueError, match="encoder 'vit' is unknown; choose conv or resnet"):
        jax.eval_shape(build(encoder="vit").init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("examples", "said"), [(-1, "kmeans_examples -1 is below 0"), (1, "gives 64 features, 512 codes; raise it")]
)
def test_a_kmeans_start_of_too_few_pictures_is_one_line(examples, said, command, data_dir, tmp_path):
    code, lines = command(
        "--config=configs/vqvae.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={data_dir}",
        "--config.model.codebook_size=512",
        f"--config.kmeans_examples={examples}",
    )
    assert code == 2
    assert said in lines[-1]
