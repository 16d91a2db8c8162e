"""ResNets: shapes at every depth and cut, and which statistics normalise."""

from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.resnet import ResNet, normalise

# He et al. 2015, table 1: without the classifier, 25,557,032 - 2,049,000 and 44,549,160 - 2,049,000.
PARAMETERS = {50: 23_508_032, 101: 42_500_160}
TINY = {"width": 4, "stage_layers": (1, 2, 1, 1)}


def shapes(model, height=64, width=64):
    """Shapes of the output and of the variables."""
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def pictures(seed, side=32):
    return jax.random.normal(jax.random.key(seed), (3, side, side, 3))


@pytest.fixture(scope="module")
def variables():
    """Of a tiny model, far from a fresh one's, and alive: biases are above 0."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return (rng.normal(0, 0.3, leaf.shape) if leaf.ndim == 4 else rng.uniform(0.5, 1, leaf.shape)).astype("f4")

    return jax.tree.map(draw, shapes(ResNet(**TINY, stage=2))[1])


def run(variables, seed, train, **fields):
    model = ResNet(**TINY, stage=2, **fields)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))
    output, moved = apply(variables, pictures(seed))
    return np.asarray(output), moved["batch_stats"]


def different(one, other):
    """The leaves that differ, as booleans."""
    return [bool(np.any(a != b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)]


@pytest.mark.parametrize("depth", [50, 101])
def test_the_whole_model_has_the_papers_size(depth):
    output, variables = shapes(ResNet(depth=depth), 224, 224)
    assert output.shape == (2, 7, 7, 2048)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == PARAMETERS[depth]
    assert set(variables) == {"params", "batch_stats"}


@pytest.mark.parametrize(("depth", "blocks"), [(50, [3, 7, 13, 16]), (101, [3, 7, 30, 33])])
def test_a_cut_leaves_out_the_stages_above(depth, blocks):
    whole = shapes(ResNet(depth=depth))[1]["params"]
    for stage, count in enumerate(blocks, 1):
        output, variables = shapes(ResNet(depth=depth, stage=stage))
        assert output.shape == (2, 64 // 2 ** (stage + 1), 64 // 2 ** (stage + 1), 64 * 2 ** (stage + 1))
        params = variables["params"]
        assert len(params) == 1 + count
        assert all(params[name] == whole[name] for name in params)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (97, 131), (255, 1)])
def test_odd_sides_are_rounded_up(height, width):
    for stage in (1, 2, 3, 4):
        output, _ = shapes(ResNet(**TINY, stage=stage), height, width)
        assert output.shape[1:3] == (ceil(height / 2 ** (stage + 1)), ceil(width / 2 ** (stage + 1)))


def test_bfloat16_computes_but_keeps_float32():
    output, variables = shapes(ResNet(**TINY, dtype="bfloat16"))
    assert output.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("fields", "train"), [({}, False), ({"freeze_stats": True}, True)])
def test_running_statistics_normalise_and_stay(variables, fields, train):
    output, moved = run(variables, 1, train, **fields)
    assert not any(different(moved, variables["batch_stats"]))
    other = {**variables, "batch_stats": jax.tree.map(lambda x: 2 * x, variables["batch_stats"])}
    assert np.abs(run(other, 1, train, **fields)[0] - output).max() > 0.1
    if train:
        np.testing.assert_array_equal(output, run(variables, 1, False)[0])


def test_the_batchs_statistics_normalise_in_training_and_move_the_running_ones(variables):
    output, moved = run(variables, 1, True)
    assert all(different(moved, variables["batch_stats"]))
    other = {**variables, "batch_stats": jax.tree.map(lambda x: 2 * x, variables["batch_stats"])}
    np.testing.assert_array_equal(output, run(other, 1, True)[0])
    # A tenth of the way to a batch's statistics: twice the start leaves nine tenths of it more.
    trees = (moved, run(other, 1, True)[1], variables["batch_stats"])
    for one, two, old in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(two - one, 0.9 * old, rtol=1e-4, atol=1e-6)


def test_normalise_takes_out_imagenets_mean_and_deviation():
    images = jnp.array([[[[0.485, 0.456, 0.406], [0.714, 0.232, 0.856]]]])
    np.testing.assert_allclose(normalise(images), [[[[0, 0, 0], [1, -1, 2]]]], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"depth": 18}, "depth 18 is unknown; choose 50 or 101"),
        ({"stage": 0}, "stage 0 is not in 1 to 4"),
        ({"stage": 5}, "stage 5 is not in 1 to 4"),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    with pytest.raises(ValueError, match=said):
        shapes(ResNet(**fields))
