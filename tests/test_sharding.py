"""Where arrays lie: meshes that devices make up, and rules that fit the arrays; one device stands in for eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from t2i_jax.errors import UserError
from t2i_jax.loop import sharding

MESH = Mesh(np.full((2, 2, 2), jax.devices()[0]), sharding.AXES)
SHAPES = {
    "mlp": {"kernel": jax.ShapeDtypeStruct((3, 512, 256), jnp.float32), "bias": jax.ShapeDtypeStruct((6,), "f4")}
}


def specs(*rules):
    return jax.tree.map(lambda place: place.spec, sharding.infer(SHAPES, MESH, rules))["mlp"]


def test_large_arrays_are_split_along_their_longest_axis_and_small_ones_are_whole():
    assert specs() == {"kernel": PartitionSpec(None, "fsdp", None), "bias": PartitionSpec(None)}


def test_the_first_rule_that_fits_names_the_last_axes():
    """A rule with more axes than an array has is none for it."""
    rules = ("mlp/", (None, "tensor")), ("kernel", ("tensor", None))
    assert specs(*rules) == {"kernel": PartitionSpec(None, None, "tensor"), "bias": PartitionSpec(None)}
    assert specs(("bias", ("fsdp",))) == specs() | {"bias": PartitionSpec("fsdp")}
    both = (("data", "fsdp"),)
    assert specs(("kernel", both))["kernel"] == PartitionSpec(None, None, *both)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            ("kernel", (None, "model")),
            "config.sharding_rules 'kernel' names 'model'; choose data, fsdp, tensor",
        ),
        (
            ("kernel", ("tensor", None, None)),
            "config.sharding_rules 'kernel': mlp/kernel (3, 512, 256) cannot be split by tensor 2;"
            " give this axis None, or change config.mesh.tensor",
        ),
    ],
)
def test_rules_that_do_not_fit(rule, said):
    with pytest.raises(UserError) as error:
        specs(rule)
    assert str(error.value) == said


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-2, -4, 1), (-1, 3, 1), (-1, 0, 1)])
def test_meshes_that_devices_do_not_make_up(sizes, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    data, fsdp, tensor = sizes
    with pytest.raises(UserError) as error:
        sharding.make_mesh(dict(zip(sharding.AXES, sizes, strict=True)))
    assert str(error.value) == (
        f"config.mesh (data {data}, fsdp {fsdp}, tensor {tensor}) does not make up 8 devices; let one of them be -1"
    )
