"""ResNets in the hub's format (`ResNetModel`, `ResNetForImageClassification` of transformers) -> models/resnet.py.

Whether a 1x1 or a 3x3 convolution strides cannot be seen in the weights: version 1.5 is assumed, as
`microsoft/resnet-50` and its siblings are.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from t2i_jax.convert import hub, tables, weights
from t2i_jax.errors import UserError

# Ours -> theirs, from the outside in: modules, convolutions of a block, arrays of a convolution and its norm.
STEM = "embedder.embedder"
LAYER = "encoder.stages.{}.layers.{}"
CONVS = {"reduce": "layer.0", "spatial": "layer.1", "expand": "layer.2", "shortcut": "shortcut"}
ARRAYS = {
    ("params", "conv", "kernel"): "convolution.weight",
    ("params", "norm", "scale"): "normalization.weight",
    ("params", "norm", "bias"): "normalization.bias",
    ("batch_stats", "norm", "mean"): "normalization.running_mean",
    ("batch_stats", "norm", "var"): "normalization.running_var",
}
IGNORED = (r"classifier\.1\.(weight|bias)", r".*\.normalization\.num_batches_tracked")


def load(name_or_folder: str | Path, shapes: dict) -> dict:
    """Read a ResNet's released weights.

    Args:
      name_or_folder: see `hub.find`; "microsoft/resnet-50" and "microsoft/resnet-101" have what is needed.
      shapes: `{"params": ..., "batch_stats": ...}` of the `ResNet` to be filled, with anything at the leaves that
        has a shape: its own variables, or what `jax.eval_shape` says of them.

    Returns:
      `{"params": ..., "batch_stats": ...}` of these shapes, float32. Stages that the target lacks are left out.

    Raises:
      UserError: the file cannot be had or read, or is not of this model; see `hub` and `convert`.
    """
    path = hub.find(name_or_folder)
    return convert(weights.read(path), shapes, str(path))


def convert(tensors: dict[str, np.ndarray], shapes: dict, origin: str) -> dict:
    """Arrays by their names -> the tree of `shapes`; every array is used or ignored on purpose, every leaf filled.

    Args:
      tensors: with or without the prefix "resnet.".
      shapes: see `load`.
      origin: what errors call the tensors.

    Raises:
      UserError: another architecture or depth; or names or shapes that differ, with a list of them.
    """
    prefix = "resnet." if any(name.startswith("resnet.") for name in tensors) else ""
    table = {}
    for path, leaf in flatten_dict(shapes).items():
        transposed = " T" if path[-1] == "kernel" else ""
        table["/".join(path)] = tables.Row(tuple(leaf.shape), prefix + _source(path) + transposed)
    wanted = _layers(row.source for row in table.values())
    _check_architecture(tensors, wanted, origin)
    above = rf"(resnet\.)?encoder\.stages\.([{len(wanted)}-9])\..*"  # stages the target was cut below
    try:
        return tables.fill(tensors, table, ignored=(*IGNORED, above), origin=origin)
    except UserError as error:
        raise UserError(f"{error}; name the weights of another ResNet, or change config.model") from None


def _source(path: tuple) -> str:
    """The name, without prefix, of the tensor that belongs at a path."""
    collection, module, *convs, part, leaf = path
    block = re.fullmatch(r"stage(\d)_layer(\d+)", module)
    outer = [LAYER.format(*block.groups())] if block else [STEM]
    return ".".join([*outer, *(CONVS[conv] for conv in convs), ARRAYS[collection, part, leaf]])


def _layers(names) -> list[int]:
    """How many layers each stage has."""
    found = {
        match.groups() for name in names if (match := re.search(r"encoder\.stages\.(\d)\.layers\.(\d+)\.", name))
    }
    counts = Counter(int(stage) for stage, _ in found)
    return [counts[stage] for stage in range(max(counts, default=-1) + 1)]


def _check_architecture(tensors: dict, wanted: list[int], origin: str) -> None:
    layers = _layers(tensors)
    if not layers or not any(STEM in name for name in tensors):
        raise tables.holds_no("ResNet", tensors, origin)
    if not any(f".{CONVS['expand']}." in name for name in tensors):
        raise UserError(
            f"{origin} holds a ResNet of two convolutions a block (ResNet-18 or 34); this model has three: name the"
            " weights of a ResNet-50 or 101"
        )
    if layers[: len(wanted)] != wanted:
        raise UserError(
            f"{origin} holds a ResNet of {_name(layers)} blocks; this model has {_name(wanted)}: name other"
            " weights, or change the model's depth (50 has 3, 4, 6, 3 blocks, 101 has 3, 4, 23, 3)"
        )


def _name(layers: list[int]) -> str:
    return ", ".join(map(str, layers))
