"""A ResNet's weights in the hub's format: what fits is placed, what does not is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from t2i_jax.convert import resnet
from t2i_jax.errors import UserError
from t2i_jax.models.resnet import ResNet

WIDTH, LAYERS = 4, (1, 2, 1, 1)


def conv_names(name, out, into, kernel):
    """The shapes of a convolution and its norm as the hub's files have them."""
    norm = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.convolution.weight": (out, into, kernel, kernel)}
    shapes |= {f"{name}.normalization.{part}": (out,) for part in norm}
    return shapes | {f"{name}.normalization.num_batches_tracked": ()}


def tensors(prefix="resnet.", layers=LAYERS):
    """A file's tensors; no number is in them twice."""
    shapes, channels = conv_names("embedder.embedder", WIDTH, 3, 7), WIDTH
    for i, count in enumerate(layers):
        inner, outer = WIDTH * 2**i, 4 * WIDTH * 2**i
        for j in range(count):
            name = f"encoder.stages.{i}.layers.{j}"
            if j == 0:
                shapes |= conv_names(f"{name}.shortcut", outer, channels, 1)
            shapes |= conv_names(f"{name}.layer.0", inner, channels, 1)
            shapes |= conv_names(f"{name}.layer.1", inner, inner, 3)
            shapes |= conv_names(f"{name}.layer.2", outer, inner, 1)
            channels = outer
    arrays, first = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[prefix + name] = np.arange(first, first + size, dtype=np.float32).reshape(shape)
        first += size
    if prefix:  # a classifier's file
        arrays |= {"classifier.1.weight": np.zeros((7, channels), "f4"), "classifier.1.bias": np.zeros(7, "f4")}
    return arrays


def target(stage=4, layers=LAYERS):
    model = ResNet(width=WIDTH, stage_layers=layers, stage=stage)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def refused(arrays, shapes=None):
    with pytest.raises(UserError) as error:
        resnet.convert(arrays, shapes or target(), "FILE")
    message = str(error.value)
    assert message.startswith("FILE ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("prefix", ["resnet.", ""])
@pytest.mark.parametrize("stage", [1, 2, 4])
def test_every_leaf_is_filled_from_its_tensor(tmp_path, prefix, stage):
    arrays, shapes = tensors(prefix), target(stage)
    save_file(arrays, tmp_path / "model.safetensors")
    tree = resnet.load(tmp_path, shapes)
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, shapes)
    assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype("float32")}
    # As many different numbers as places: no tensor was used twice.
    flat = np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    assert len(np.unique(flat)) == len(flat)

    def source(name):
        return arrays[prefix + name]

    stem, block = "embedder.embedder", "encoder.stages.0.layers.0"
    params, stats = tree["params"], tree["batch_stats"]
    for y, x, i, o in [(0, 0, 0, 0), (6, 2, 1, 3)]:
        assert params["stem"]["conv"]["kernel"][y, x, i, o] == source(f"{stem}.convolution.weight")[o, i, y, x]
    pairs = {"reduce": "layer.0", "spatial": "layer.1", "expand": "layer.2", "shortcut": "shortcut"}
    for ours, theirs in pairs.items():
        norm = params["stage0_layer0"][ours]["norm"]
        moving = stats["stage0_layer0"][ours]["norm"]
        np.testing.assert_array_equal(norm["scale"], source(f"{block}.{theirs}.normalization.weight"))
        np.testing.assert_array_equal(norm["bias"], source(f"{block}.{theirs}.normalization.bias"))
        np.testing.assert_array_equal(moving["mean"], source(f"{block}.{theirs}.normalization.running_mean"))
        np.testing.assert_array_equal(moving["var"], source(f"{block}.{theirs}.normalization.running_var"))


def test_half_precision_is_read_as_float32(tmp_path):
    halves = {name: array.astype(np.float16) for name, array in tensors().items()}
    save_file(halves, tmp_path / "model.safetensors")
    assert {x.dtype for x in jax.tree.leaves(resnet.load(tmp_path, target()))} == {np.dtype("float32")}


def test_a_missing_tensor_is_named():
    arrays = tensors()
    del arrays["resnet.encoder.stages.1.layers.1.layer.2.normalization.running_var"]
    assert "resnet.encoder.stages.1.layers.1.layer.2.normalization.running_var is missing" in refused(arrays)


@pytest.mark.parametrize(
    "name", ["resnet.extra.weight", "classifier.2.weight", "resnet.encoder.stages.0.layers.0.layer.3.scale", "bias"]
)
def test_a_tensor_without_a_place_is_named(name):
    assert f"{name} has no place" in refused({**tensors(), name: np.zeros(3, "f4")})


def test_stages_above_a_cut_may_be_anything_and_those_below_may_not():
    name = "resnet.encoder.stages.{}.layers.0.layer.0.extra"
    resnet.convert({**tensors(), name.format(2): np.zeros(1, "f4")}, target(stage=2), "FILE")
    assert "has no place" in refused({**tensors(), name.format(1): np.zeros(1, "f4")}, target(stage=2))


def test_another_shape_is_named():
    arrays = tensors()
    arrays["resnet.embedder.embedder.convolution.weight"] = np.zeros((4, 1, 7, 7), "f4")
    said = "resnet.embedder.embedder.convolution.weight has shape (4, 1, 7, 7), not (4, 3, 7, 7)"
    assert said in refused(arrays)


def test_many_differences_make_one_line_that_counts_them():
    arrays = {name: array for name, array in tensors().items() if not name.endswith("normalization.weight")}
    assert "and 16 more" in refused(arrays)  # 20 norms, 4 shown


@pytest.mark.parametrize(
    ("layers", "said"),
    [((1, 3, 1, 1), "ResNet of 1, 3, 1, 1 blocks; this model has 1, 2, 1, 1"), ((1, 2), "ResNet of 1, 2 blocks")],
)
def test_another_depth_is_one_line(layers, said):
    assert said in refused(tensors(layers=layers))


def test_a_resnet_18_is_one_line():
    basic = {name: array for name, array in tensors().items() if ".layer.2." not in name}
    assert "two convolutions a block (ResNet-18 or 34)" in refused(basic)


@pytest.mark.parametrize("names", [["embeddings.word_embeddings.weight", "encoder.layer.0.attention.bias"], []])
def test_another_architecture_is_one_line(names):
    message = refused({name: np.zeros((2, 2), "f4") for name in names})
    assert f"holds no ResNet (its tensors: {', '.join(names) or 'none at all'}" in message


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_file_cut_short_is_one_line(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        UserError, match=r"model\.safetensors is damaged, cut short or no safetensors file"
    ) as error:
        resnet.load(tmp_path, target())
    assert "\n" not in str(error.value)


def test_a_file_of_another_format_is_one_line(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20)
    with pytest.raises(UserError, match="nothing in it was run"):
        resnet.load(path, target())
