"""Where arrays lie: a mesh with the axes `data`, `fsdp` and `tensor`, and rules from a path to its axes."""

import glob
import os
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from t2i_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
SMALLEST_SHARDED = 2**16  # elements; smaller arrays are replicated where no rule names them


def make_mesh(sizes) -> Mesh:
    """All devices, in a grid.

    Args:
      sizes: `config.mesh`, devices along each of `AXES`; one of them may be -1, which takes what is left.

    Raises:
      UserError: the sizes do not make up the number of devices.
    """
    shape, devices = [int(sizes[axis]) for axis in AXES], jax.device_count()
    rest = -int(np.prod(shape))  # of the axes that are given, where one is -1
    if shape.count(-1) == 1 and rest > 0 and devices % rest == 0:
        shape[shape.index(-1)] = devices // rest
    if min(shape) < 1 or np.prod(shape) != devices:
        asked = ", ".join(f"{axis} {sizes[axis]}" for axis in AXES)
        raise UserError(f"config.mesh ({asked}) does not make up {devices} devices; let one of them be -1")
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch(mesh: Mesh) -> NamedSharding:
    """Split along the leading axis, over all devices but those that share one model by `tensor`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def infer(shapes, mesh: Mesh, rules=()):
    """Shardings of a state.

    An array whose path a rule's pattern is found in lies as that rule says; any other large one is split along its
    longest axis that the mesh axis `fsdp` divides (Zhao et al. 2023, FSDP), and what is left is replicated.

    Args:
      shapes: tree of arrays or `jax.ShapeDtypeStruct`.
      mesh: of `make_mesh`.
      rules: `config.sharding_rules`, pairs of a regular expression, found in a path such as
        "params/gpt2/blocks/mlp/up/kernel", and the mesh axes of the array's last axes, None for a whole one.

    Raises:
      UserError: a rule names more axes than an array has, an axis that the mesh lacks, or one that does not divide.
    """

    def rule(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axes in rules:
            if re.search(pattern, name) and x.ndim >= len(axes):
                spec = PartitionSpec(*[None] * (x.ndim - len(axes)), *axes)
                _check_rule(pattern, name, x.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        axes, parts = [None] * x.ndim, mesh.shape["fsdp"]
        divisible = [i for i in range(x.ndim) if x.shape[i] % parts == 0]
        if parts > 1 and x.size >= SMALLEST_SHARDED and divisible:
            axes[max(divisible, key=lambda i: x.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(rule, shapes)


def _check_rule(pattern: str, name: str, shape, spec: PartitionSpec, mesh: Mesh) -> None:
    for size, axes in zip(shape, spec, strict=True):
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if axis not in mesh.shape:
                raise UserError(f"config.sharding_rules {pattern!r} names {axis!r}; choose {', '.join(AXES)}")
            if size % mesh.shape[axis]:
                raise UserError(
                    f"config.sharding_rules {pattern!r}: {name} {shape} cannot be split by {axis}"
                    f" {mesh.shape[axis]}; give this axis None, or change config.mesh.{axis}"
                )


def describe_devices() -> str:
    """One line on the devices in use, and a second, a warning, where an accelerator is not used."""
    devices = jax.devices()
    line = f"devices: {len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    if jax.process_count() > 1:
        line += f" on {jax.process_count()} hosts"
    if devices[0].platform != "cpu":
        return line
    if glob.glob("/dev/nvidia[0-9]*"):
        found, extra = "an NVIDIA GPU", "cuda12"
    elif glob.glob("/dev/accel[0-9]*") or os.path.exists("/dev/vfio/0"):
        found, extra = "a TPU", "tpu"
    else:
        return line
    return f"{line}\nwarning: this machine has {found} that jax does not use; pip install -e '.[{extra}]'"
