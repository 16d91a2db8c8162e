"""Weights of InceptionV3 as pytorch-fid publishes them -> `models/inception.py`.

The file is a pickled state dict of torch. It is read through an allow-list, and nothing in it is run.
"""

import re

import numpy as np

from t2i_jax.convert import tables
from t2i_jax.models import inception

FILE = "pt_inception-2015-12-05-6726825d.pth"
RELEASED = "6726825d"  # what its sha256 begins with, by torch's rule for names of weights
PARTS = {
    "kernel": "conv.weight T",
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "variance": "bn.running_var",
}


def convert(tensors: dict[str, np.ndarray], origin: str) -> dict:
    """Weights for `models/inception.py`.

    Args:
      tensors: of the file (`pickles.read_state`), by name.
      origin: what errors call them.

    Raises:
      UserError: a tensor is left over, is missing, or has another shape.
    """
    if "Mixed_7c.branch1x1.conv.weight" not in tensors:
        raise tables.holds_no("InceptionV3", tensors, origin)
    rows = {name: tables.Row(shape, source(name)) for name, shape in inception.shapes().items()}
    return tables.fill(tensors, rows, ignored=[r".*\.num_batches_tracked"], origin=origin)


def source(name: str) -> str:
    """The tensor that a parameter is made of: `Mixed_5b_branch1x1/kernel` of `Mixed_5b.branch1x1.conv.weight`."""
    if name in ("head", "head_bias"):
        return "fc.weight T" if name == "head" else "fc.bias"
    unit, part = name.split("/")
    return f"{re.sub('_(?=branch)', '.', unit)}.{PARTS[part]}"
