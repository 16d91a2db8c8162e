"""Where arrays lie: one mesh axis, `data`, and one rule for the state, inferred from shapes."""

import glob
import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALLEST_SHARDED = 2**16  # elements; smaller arrays are replicated


def make_mesh() -> Mesh:
    """All devices along one axis."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def batch(mesh: Mesh) -> NamedSharding:
    """Split along the leading axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def infer(shapes, mesh: Mesh, *, fsdp: bool):
    """Shardings of a state.

    Args:
      shapes: tree of arrays or `jax.ShapeDtypeStruct`.
      mesh: of `make_mesh`.
      fsdp: split each large array along its longest axis that the mesh divides (Zhao et al. 2023, FSDP);
        otherwise replicate everything.
    """
    devices = mesh.shape["data"]

    def rule(x):
        axes = [None] * x.ndim
        divisible = [i for i in range(x.ndim) if x.shape[i] % devices == 0]
        if fsdp and x.size >= SMALLEST_SHARDED and divisible:
            axes[max(divisible, key=lambda i: x.shape[i])] = "data"
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(rule, shapes)


def describe_devices() -> tuple[str, str]:
    """One line on the devices in use, and a warning (or "") where an accelerator stands unused."""
    devices = jax.devices()
    line = f"devices: {len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    if jax.process_count() > 1:
        line += f" on {jax.process_count()} hosts"
    if devices[0].platform != "cpu":
        return line, ""
    if glob.glob("/dev/nvidia[0-9]*"):
        found, extra = "an NVIDIA GPU", "cuda12"
    elif glob.glob("/dev/accel[0-9]*") or os.path.exists("/dev/vfio/0"):
        found, extra = "a TPU", "tpu"
    else:
        return line, ""
    return line, f"this machine has {found} that jax does not use; pip install -e '.[{extra}]'"
