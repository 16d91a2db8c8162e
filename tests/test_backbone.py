"""A ResNet as encoder: what frozen means, and where released weights go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from fakes import fake_variables
from flax.core import FrozenDict
from flax.traverse_util import flatten_dict

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.convert import resnet
from t2i_jax.errors import UserError
from t2i_jax.loop import dry_run, parallel
from t2i_jax.loop.state import split
from t2i_jax.models.backbone import Backbone
from t2i_jax.models.vqvae import Model
from t2i_jax.tasks import reconstruct


def model(frozen):
    return Model(
        codebook_size=16,
        image_size=32,
        width=16,
        code_width=8,
        residual_blocks=0,
        encoder="resnet",
        backbone=FrozenDict(depth=50, stage=1, frozen=frozen),
        pretrained=True,
    )


@functools.cache
def variables_of(frozen=True):
    shapes = jax.eval_shape(model(frozen).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    made = fake_variables(shapes)
    made["batch_stats"] = jax.tree.map(np.abs, made["batch_stats"])  # variances
    return made


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_parts_get_no_gradient_and_keep_their_statistics(frozen):
    variables = dict(variables_of())
    params = variables.pop("params")
    images = jnp.array(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)

    def loss(params):
        return reconstruct.loss_fn(
            model(frozen), params, variables, {"image": images}, step=0, rngs={}, train=True, foreground_weight=1.0
        )

    gradient, (after, _) = jax.jit(jax.grad(loss, has_aux=True))(params)
    largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient["features"]))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after["batch_stats"], variables["batch_stats"])
    assert (largest == 0) == frozen
    assert (max(jax.tree.leaves(moved)) == 0) == frozen
    assert float(np.abs(gradient["to_codes"]["kernel"]).max()) > 0


def test_a_grey_picture_is_read_as_three_equal_colours():
    images = jnp.array(np.random.default_rng(0).random((1, 32, 32, 1)), jnp.float32)
    backbone = Backbone(depth=50, stage=1)
    variables = {
        "params": variables_of()["params"]["features"],
        "batch_stats": variables_of()["batch_stats"]["features"],
    }
    grey, colours = (backbone.apply(variables, x) for x in (images, images.repeat(3, -1)))
    np.testing.assert_array_equal(grey, colours)
    assert float(grey.std()) > 0


@pytest.fixture
def released(tmp_path):
    """A file of the hub's format for this ResNet, every value 0.25."""
    tree = {
        "params": variables_of()["params"]["features"]["resnet"],
        "batch_stats": variables_of()["batch_stats"]["features"]["resnet"],
    }
    tensors = {}
    for path, leaf in flatten_dict(tree).items():
        shape = leaf.shape
        shape = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
        tensors["resnet." + resnet._source(path)] = np.full(shape, 0.25, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_released_weights_replace_the_backbone_and_nothing_else(released):
    config = load_config("vqvae:mnist")
    config.backbone_weights, config.kmeans_examples = str(released), 0
    before = variables_of()
    rest = {name: tree for name, tree in before.items() if name != "params"}
    params, variables = tasks.make(config).warm_start(before["params"], rest, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, before["params"])
    assert all((x == 0.25).all() for x in jax.tree.leaves((params["features"], variables["batch_stats"])))
    assert params["to_codes"] is before["params"]["to_codes"]
    assert variables["codebook"] is before["codebook"]


def test_without_weights_the_way_out_is_training_from_scratch(monkeypatch, tmp_path):
    config = load_config("vae:cifar10_resnet")
    config.backbone_weights = str(tmp_path)
    with pytest.raises(
        UserError, match=r"holds no model.safetensors.*train from scratch: config.model.pretrained=F"
    ):
        tasks.make(config).check(tmp_path)
    config.model.pretrained = False
    tasks.make(config).check(tmp_path)
    assert tasks.make(config).warm_start({"a": 1}, {}, jax.random.key(0)) == ({"a": 1}, {})


def test_only_a_resnet_that_starts_from_released_weights_is_frozen():
    params = {"features": {"resnet": {"kernel": 1}}, "decoder": {"features": 2}}

    def trained(config):
        (phase,) = tasks.make(config).phases()
        return split(params, phase)[0]

    for config in (load_config("vqvae:mnist"), load_config("vae:cifar10_resnet")):
        assert trained(config) == {"decoder": {"features": 2}}
        config.model.pretrained = False
        assert trained(config) == params
        config.model.pretrained, config.model.backbone.frozen = True, False
        assert trained(config) == params
        config.model.encoder, config.model.backbone.frozen = "conv", True
        assert trained(config) == params
    assert trained(load_config("patch_vqvae")) == params


def test_a_resnet_from_scratch_is_trained():
    scratch = model(True).clone(pretrained=False)
    variables = dict(variables_of())
    params, images = (
        variables.pop("params"),
        jnp.array(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32),
    )

    def loss(params):
        batch = {"image": images}
        return reconstruct.loss_fn(
            scratch, params, variables, batch, step=0, rngs={}, train=True, foreground_weight=1.0
        )

    gradient, (after, _) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient["features"])) > 0
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after["batch_stats"], variables["batch_stats"])
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize("variant", ["mnist", "cifar10", "coco"])
def test_the_plain_encoder_needs_no_released_weights(variant, tmp_path):
    config = load_config(f"vqvae:{variant}")
    config.backbone_weights, config.model.encoder = str(tmp_path), "conv"
    tasks.make(config).check(tmp_path)
    assert tasks.make(config).find_weights() is None


def test_a_run_with_a_checkpoint_asks_for_no_released_weights(tmp_path):
    config = load_config("vqvae:mnist")
    config.backbone_weights = str(tmp_path / "pruned")
    with pytest.raises(UserError, match="pruned"):
        tasks.make(config).check(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    tasks.make(config).check(tmp_path)


def test_pmap_trains_no_resnet(tmp_path):
    config = load_config("vqvae:mnist")
    config.model.pretrained, config.parallel = False, "pmap"
    with pytest.raises(UserError, match=r"^config.parallel 'pmap' normalises each device's images apart"):
        tasks.make(config).check(tmp_path)


@pytest.mark.slow
def test_what_a_frozen_resnet_would_cost_is_known_with_micro_batches_too():
    """No optimizer holds anything for it."""
    config = load_config("vqvae:mnist")
    config.model.update({"width": 16, "code_width": 8, "residual_blocks": 0, "codebook_size": 16})
    config.model.backbone.depth = 50
    config.batch_size = 4
    whole = dry_run.measure(config)
    config.accumulate, config.batch_size = 2, 8
    parts = dry_run.measure(config)
    frozen = whole["parameters"]["features"]
    trained = sum(whole["parameters"].values()) - frozen
    variables = sum(x.size for x in jax.tree.leaves(parallel.make(tasks.make(config)).shapes.variables))
    counters = 3  # of the state, of Adam and of its schedule
    assert parts["checkpoint"] == whole["checkpoint"] == 4 * (frozen + 3 * trained + variables + counters)
    assert parts["flops"] == 2 * whole["flops"]
