"""Tables that say which tensors of a released file make which parameter, and their use in both directions.

A table maps a parameter's name, "/" between its parts, to a `Row`. Its shape is written in letters: D width, M that
of the MLP, V vocabulary, P positions, T segments, E the encoder's width; "D 3D" is a matrix whose last axis is made
of three parts.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from t2i_jax.errors import UserError

SHOWN = 4  # differences that an error lists


class Row(NamedTuple):
    """One parameter.

    Attributes:
      shape: in letters.
      sources: tensors that are joined along their last axis; " T" after a name transposes it first.
    """

    shape: str
    sources: tuple[str, ...]


Table = dict[str, Row]


def layered(top: Mapping, layer: Mapping, inside: str, layers: int, ours: str = "", theirs: str = "") -> Table:
    """A whole table from one of what stands once and one of what every layer has.

    Args:
      top, layer: name -> (shape, source, ...).
      inside: where theirs keeps its layers; ours are `blocks_0`, `blocks_1`, ...
      layers: how many.
      ours, theirs: prefixes of all names.
    """
    rows = {
        ours + name: Row(shape, tuple(theirs + source for source in sources))
        for name, (shape, *sources) in top.items()
    }
    for i in range(layers):
        rows |= layered(layer, {}, "", 0, f"{ours}blocks_{i}/", f"{theirs}{inside}.{i}.")
    return rows


def shape_of(row: Row, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A row's shape in numbers."""
    return tuple(int(times or 1) * sizes[letter] for times, letter in re.findall(r"(\d*)([A-Z])", row.shape))


def fill(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    sizes: Mapping[str, int],
    *,
    ignored: Iterable[str] = (),
    origin: str,
) -> dict:
    """Params from tensors: each parameter is filled, each tensor is used or ignored on purpose.

    Args:
      tensors: by name.
      table: of all parameters that are to be filled.
      sizes: numbers of the letters.
      ignored: patterns of the names of tensors that have no place and need none.
      origin: what errors call the tensors.

    Returns:
      A nested dict of float32 arrays.

    Raises:
      UserError: tensors are missing, left over, or of another shape; it lists them.
    """
    sources = {source.removesuffix(" T") for row in table.values() for source in row.sources}
    differences = [f"{name} is missing" for name in sorted(sources - tensors.keys())]
    differences += [
        f"{name} has no place"
        for name in sorted(tensors.keys() - sources)
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    flat = {}
    for name, row in table.items():
        *outer, last = shape_of(row, sizes)
        part = (*outer, last // len(row.sources))
        arrays = []
        for source in row.sources:
            source, turned, _ = source.partition(" T")
            if source not in tensors:
                continue
            expected = part[::-1] if turned else part
            if tensors[source].shape != expected:
                differences.append(f"{source} has shape {tensors[source].shape}, not {expected}")
                continue
            arrays.append(tensors[source].T if turned else tensors[source])
        if len(arrays) == len(row.sources):
            flat[name] = np.concatenate(arrays, -1, dtype=np.float32, casting="same_kind")
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError(f"{origin} does not fit this model: {'; '.join(differences[:SHOWN])}{more}")
    return nest(flat)


def spread(params: Mapping, table: Table) -> dict[str, np.ndarray]:
    """The tensors that `fill` makes these params of."""
    flat, tensors = flatten(params), {}
    for name, row in table.items():
        parts = np.split(np.asarray(flat[name]), len(row.sources), -1)
        for source, part in zip(row.sources, parts, strict=True):
            source, turned, _ = source.partition(" T")
            tensors[source] = np.ascontiguousarray(part.T if turned else part)
    return tensors


def nest(flat: Mapping) -> dict:
    """A nested dict from names with "/" between their parts."""
    tree = {}
    for name, array in flat.items():
        *outer, last = name.split("/")
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def flatten(tree: Mapping, prefix: str = "") -> dict:
    """The reverse of `nest`."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def layers_in(tensors: Iterable[str], inside: str) -> int:
    """How many layers tensors name."""
    found = (re.match(rf"{re.escape(inside)}\.(\d+)\.", name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def check_sizes(found: Mapping, asked: Mapping, origin: str, kind: str, field: str) -> None:
    """Whether a file has the sizes that a config asks for.

    Raises:
      UserError: it lists those that differ, and the config field to change.
    """
    wrong = [f"{name} {found[name]}, not {asked[name]}" for name in found if found[name] != asked[name]]
    if wrong:
        raise UserError(f"{origin} holds a {kind} of {', '.join(wrong)}; name other weights, or change {field}")


def read_sizes(config: Mapping, names: Mapping[str, str], fixed: Mapping, origin: str) -> dict:
    """Sizes, by the names of our fields, from a released `config.json`.

    Args:
      config: the part of it that describes one model.
      names: of our fields -> its own.
      fixed: its fields -> the values that our module computes with; one that is not in it is one of them.
      origin: what errors call it.

    Raises:
      UserError: a size is missing or no whole number above 0, or a field has a value that the module does not
        compute with.
    """
    for field, known in fixed.items():
        if config.get(field, known[0]) not in known:
            raise UserError(
                f"{origin} has {field} {config[field]}; this model computes with {known[0]} alone: name others"
            )
    missing = [theirs for theirs in names.values() if theirs not in config]
    if missing:
        raise UserError(f"{origin} has no field {missing[0]!r}; fetch it again, or name other weights")
    for theirs in names.values():
        if type(config[theirs]) is not int or config[theirs] < 1:
            raise UserError(
                f"{origin} has {theirs} {config[theirs]!r}, which is no whole number above 0; fetch it again"
            )
    return {ours: config[theirs] for ours, theirs in names.items()}
