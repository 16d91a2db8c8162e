"""The adversarial phase of image tokenizers: its losses, its start, and what each of the two phases moves."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_variables
from flax.traverse_util import flatten_dict

import t2i_jax
from t2i_jax import models, runs, tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import parallel
from t2i_jax.loop.train import train
from t2i_jax.models.patchgan import Discriminator, smallest_side
from t2i_jax.tasks import adversarial, reconstruct

SIDE = 32


def config_of(data_dir="none", **loss):
    """A tiny VQ-VAE against a tiny discriminator."""
    config = load_config("vqvae:smoke")
    config.data.data_dir = str(data_dir)
    config.model.update({"codebook_size": 16, "width": 8, "code_width": 4, "residual_blocks": 1})
    config.discriminator.update({"width": 8, "layers": 2})
    config.discriminator_optim.update({"lr": 2e-3, "warmup": 1})
    config.loss.update({"adversarial": 0.8} | loss)
    config.steps, config.accumulate, config.eval_every, config.checkpoint_every = 4, 2, 2, 2
    return config


# --- the discriminator


@pytest.mark.parametrize(
    ("layers", "side", "logits"), [(3, 256, 30), (2, 64, 14), (2, 28, 5), (3, 24, 1), (1, 6, 1)]
)
def test_a_grid_of_logits(layers, side, logits):
    """256 pixels give 30 x 30 (Isola et al. 2017); `smallest_side` gives one."""
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    found, variables = jax.eval_shape(Discriminator(layers=layers).init_with_output, jax.random.key(0), images)
    assert found.shape == (2, logits, logits)
    assert set(variables) == {"params"}  # no averages of a batch
    assert (side >= smallest_side(layers)) == (logits >= 1)
    widths = [variables["params"][f"conv_{i}"]["kernel"].shape[-1] for i in range(layers + 1)]
    assert widths == [64, 128, 256, 512][: layers + 1]


def test_below_the_smallest_side_there_is_no_logit():
    for layers in (1, 2, 3):
        side = smallest_side(layers) - 1
        images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        found = jax.eval_shape(Discriminator(layers=layers).init_with_output, jax.random.key(0), images)[0]
        assert found.size == 0


def test_the_hinge_loss_by_hand():
    """Logits beyond 1 on their side cost nothing: (relu(1 - .5) + relu(1 - 3)) / 2 + (relu(1 - 2) + 1.25) / 2."""
    real, fake = jnp.array([[[0.5, 3.0]]]), jnp.array([[[-2.0, 0.25]]])
    assert adversarial.hinge(real, fake) == pytest.approx((0.25 + 0.625) / 2)


@pytest.mark.parametrize("name", ["vqvae", "patch_vqvae", "vqgan"])
def test_the_last_layer_is_there(name):
    config = load_config(f"{name}:smoke")
    for downsampling in (2, 4, 16) if name == "vqvae" else (None,):
        if downsampling:
            config.model.downsampling = downsampling
        model = models.build(config)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
        assert model.last_layer in flatten_dict(shapes, sep="/")


# --- the losses


@pytest.fixture(scope="module")
def parts():
    """The task, made-up variables, and a batch."""
    task = tasks.make(config_of(disc_start=5))
    images = jnp.array(np.random.default_rng(0).random((4, SIDE, SIDE, 3), np.float32))
    shapes = jax.eval_shape(task.init, jax.random.key(0), {"image": images})
    variables = jax.tree.map(jnp.asarray, fake_variables(shapes))
    return task, variables.pop("params"), variables, {"image": images}


@pytest.fixture(scope="module")
def generator(parts):
    """`step -> (loss, metrics), gradient` of the first phase."""
    task, params, variables, batch = parts

    @jax.jit
    def call(step):
        def loss(params):
            loss, (_, metrics) = task.phases()[0].loss_fn(params, variables, batch, step=step, rngs={}, train=True)
            return loss, metrics

        return jax.value_and_grad(loss, has_aux=True)(params)

    return call


def direct(parts, weight):
    """By plain autodiff: lengths of both gradients at the last kernel, the loss of a weight and its gradient."""
    task, params, variables, batch = parts

    def terms(params):
        (images, asked, _), _ = task.model.apply(
            {"params": params, **variables}, batch["image"], train=True, mutable=["codebook"]
        )
        error = jnp.mean((images - batch["image"]) ** 2)
        # The discriminator's own parameters are constants here.
        judge = jax.lax.stop_gradient(params["discriminator"])
        return error, jnp.mean(asked), -jnp.mean(task.discriminator.apply({"params": judge}, images))

    def total(params):
        error, asked, fooled = terms(params)
        return error + asked + weight * fooled

    def at_last(number):
        gradient = jax.grad(lambda params: terms(params)[number])(params)
        return jnp.linalg.norm(gradient["decoder"]["Up_1"]["kernel"])

    return jax.jit(lambda: (at_last(0), at_last(2), jax.value_and_grad(total)(params)))()


@pytest.mark.slow
def test_the_adaptive_weight_and_the_gradient_are_those_of_direct_autodiff(parts, generator):
    (loss, metrics), gradient = generator(5)
    error_length, fooled_length, (expected_loss, expected) = direct(parts, metrics["adversarial_weight"])
    ratio = error_length / (fooled_length + 1e-4)
    assert 1e-4 < ratio < adversarial.MOST
    np.testing.assert_allclose(metrics["adversarial_weight"], 0.8 * ratio, rtol=1e-5)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert loss == metrics["loss"]
    assert metrics["fooled"] != 0
    for name, g in flatten_dict(expected, sep="/").items():
        own = flatten_dict(gradient, sep="/")[name]
        np.testing.assert_allclose(own, g, rtol=0, atol=1e-5 * max(1e-3, np.abs(g).max()), err_msg=name)
    assert not any(np.abs(g).max() for g in jax.tree.leaves(gradient["discriminator"]))
    assert min(float(np.abs(g).max()) for g in jax.tree.leaves(gradient["decoder"])) > 0


@pytest.mark.slow
def test_before_its_start_the_discriminator_counts_for_nothing(parts, generator):
    (loss, metrics), gradient = generator(4)
    _, _, (expected_loss, expected) = direct(parts, 0.0)
    assert (metrics["fooled"], metrics["adversarial_weight"]) == (0, 0)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for name, g in flatten_dict(expected, sep="/").items():
        np.testing.assert_allclose(
            flatten_dict(gradient, sep="/")[name], g, rtol=0, atol=1e-5 * max(1e-3, np.abs(g).max()), err_msg=name
        )


@pytest.mark.slow
def test_the_discriminators_gradient_reaches_no_generator_and_its_loss_moves_no_codebook(parts):
    task, params, variables, batch = parts
    phase = task.phases()[1]

    @jax.jit
    def call():
        def loss(params):
            return phase.loss_fn(params, variables, batch, step=0, rngs={}, train=True)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, (moved, metrics)), gradient = call()
    jax.tree.map(np.testing.assert_array_equal, moved, variables)
    lengths = {name: float(np.abs(g).max()) for name, g in flatten_dict(gradient, sep="/").items()}
    assert all((length > 0) == name.startswith("discriminator/") for name, length in lengths.items())
    images = task.model.apply({"params": params, **variables}, batch["image"])[0]
    real, fake = (
        task.discriminator.apply({"params": params["discriminator"]}, x) for x in (batch["image"], images)
    )
    np.testing.assert_allclose(loss, adversarial.hinge(real, fake), rtol=1e-5)
    np.testing.assert_allclose([metrics["real"], metrics["fake"]], [real.mean(), fake.mean()], rtol=1e-4)


# --- the phases


def test_off_there_is_one_phase_and_no_discriminator():
    built = parallel.make(tasks.make(config_of(adversarial=0.0)))
    assert [phase.name for phase in built.phases] == ["train"]
    assert "discriminator" not in built.shapes.params


def leaves_of(tree):
    return {"/".join(name): np.asarray(x) for name, x in flatten_dict(tree).items()}


@pytest.mark.slow
@pytest.mark.parametrize("held", ["generator", "discriminator"])
def test_each_phase_moves_its_own_parameters_alone_and_can_be_held(held):
    """And a discriminator whose generator stands still tells its images from real ones better and better."""
    config = config_of()
    config.steps, config.accumulate = 30, 1
    shapes = parallel.make(tasks.make(config)).shapes
    assert set(shapes.opt_state) == {"generator", "discriminator"}
    own = {"discriminator"} if held == "discriminator" else shapes.params.keys() - {"discriminator"}
    optim = config.discriminator_optim if held == "discriminator" else config.optim
    optim.unlock().lr_multipliers = dict.fromkeys(own, 0.0)
    built = parallel.make(tasks.make(config))
    state, found = built.init(), []
    before = leaves_of(state.params)
    batch = {"image": np.random.default_rng(0).random((config.batch_size, SIDE, SIDE, 3), np.float32)}
    for _ in range(30 if held == "generator" else 2):
        state, metrics = built.step(state, batch)
        found.append(float(metrics["discriminator/loss"]))
    after = leaves_of(state.params)
    moved = {name.partition("/")[0] for name in before if before[name].tobytes() != after[name].tobytes()}
    assert moved == before_parts(before) - own
    assert float(metrics[f"{held}/gradient_norm"]) == 0
    assert float(metrics["loss"]) == pytest.approx(float(metrics["generator/loss"]) + found[-1])
    if held == "generator":
        assert found[-1] < 0.7 * found[0]


def before_parts(leaves):
    return {name.partition("/")[0] for name in leaves}


def test_a_part_that_is_frozen_has_to_be_there_in_every_phase():
    config = config_of()
    config.discriminator_optim.unlock().lr_multipliers = {"judge": 0.5}
    said = r"^lr_multipliers.judge of phase discriminator names no part of this [^\n]*$"
    with pytest.raises(UserError, match=said):
        parallel.make(tasks.make(config))


@pytest.mark.long
def test_a_stop_before_the_discriminator_counts_changes_nothing(data_dir, tmp_path, monkeypatch):
    """With two micro-batches: stopped at step 2 and continued past its start, the run is the same to the bit."""
    config = config_of(data_dir, disc_start=3)
    train(config, tmp_path / "whole")
    evaluators = reconstruct.Task.evaluators

    def stopping(task):
        def evaluate(params, variables):
            signal.raise_signal(signal.SIGTERM)
            return {}, {}

        return {"stop": evaluate}

    monkeypatch.setattr(reconstruct.Task, "evaluators", stopping)
    with pytest.raises(SystemExit):
        train(config, tmp_path / "run")
    assert runs.checkpoint_steps(tmp_path / "run") == [2]
    monkeypatch.setattr(reconstruct.Task, "evaluators", evaluators)
    train(config, tmp_path / "run")
    for name in (runs.WEIGHTS, runs.SCORES):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    pipe = t2i_jax.load(tmp_path / "run")  # a tokenizer like any other
    ids = pipe.tokenize(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert pipe.detokenize(ids).shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss.disc_start": 4}, "config.loss.disc_start 4 is no step below config.steps 4; change either"),
        ({"discriminator.layers": 4}, "layers 4 sees no patch in pictures of 32 pixels, but from 48 on; lower it"),
    ],
)
def test_mistakes_are_one_line(changes, said, tmp_path):
    config = config_of()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said) as error:
        tasks.make(config).check(tmp_path)
    assert "\n" not in str(error.value)


def test_fields_of_the_discriminator_are_known():
    for wrong in ("widht=3", "layers=0"):
        with pytest.raises(UserError, match=r"config.discriminator"):
            load_config("vqvae:smoke", [f"--config.discriminator.{wrong}"])
    config = load_config("vqvae:smoke", ["--config.discriminator.layers=2"])
    assert config.discriminator.to_dict() == {"width": 64, "layers": 2}
    assert (config.discriminator_optim.b1, config.discriminator_optim.clip) == (0.5, 1.0)
