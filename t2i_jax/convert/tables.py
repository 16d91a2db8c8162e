"""Tables that say which tensor of a released file makes which parameter, and their use in both directions.

A table maps a parameter's name, "/" between its parts, to a `Row`. Its shape is written in letters: D width, M that
of the MLP, V vocabulary, P positions, T segments, E the encoder's width; or in numbers. Layers have a row each,
`layers_0/...`, `layers_1/...`; params have them stacked along a first axis, as `nn.stack` computes with them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.errors import UserError
from t2i_jax.nn.stack import unstack
from t2i_jax.ranges import MOST_WHOLE

MOST_LAYERS = 1000  # that a config may claim: a table has rows for each
SHOWN = 4  # differences that an error lists
STACKED = re.compile(r"(.*\blayers)_(\d+)/(.*)")


class Row(NamedTuple):
    """One parameter.

    Attributes:
      shape: in letters, such as "D 3D", or in numbers.
      source: name of a tensor. " T" after it: torch's axes, outputs first, which ours has last. " 1/3" after it:
        the second of three equal parts along its last axis.
    """

    shape: str | tuple[int, ...]
    source: str


Table = dict[str, Row]


def dense(ours: str, theirs: str, into: str = "D", out: str = "D", part: str = "", turned: bool = True) -> dict:
    """Shapes and sources of a dense layer.

    Args:
      ours, theirs: its names.
      into, out: letters of its axes.
      part: such as " 1/3"; see `Row`.
      turned: their kernel has torch's axes.
    """
    kernel = f"{theirs}.weight{' T' if turned else part}"
    return {f"{ours}/kernel": (f"{into} {out}", kernel), f"{ours}/bias": (out, f"{theirs}.bias{part}")}


def norm(ours: str, theirs: str) -> dict:
    """Shapes and sources of a layer norm."""
    return {f"{ours}/scale": ("D", f"{theirs}.weight"), f"{ours}/bias": ("D", f"{theirs}.bias")}


def layered(top: Mapping, layer: Mapping, inside: str, layers: int, ours: str, theirs: str, stack: str) -> Table:
    """A whole table from one of what stands once and one of what every layer has.

    Args:
      top, layer: name -> (shape, source).
      inside: where theirs keeps its layers.
      layers: how many.
      ours, theirs: prefixes of all names.
      stack: name of our module with the layers.
    """
    rows = {ours + name: Row(shape, theirs + source) for name, (shape, source) in top.items()}
    return rows | {
        f"{ours}{stack}/layers_{i}/{name}": Row(shape, f"{theirs}{inside}.{i}.{source}")
        for i in range(layers)
        for name, (shape, source) in layer.items()
    }


def shape_of(row: Row, sizes: Mapping[str, int] = {}) -> tuple[int, ...]:
    """A row's shape in numbers."""
    if not isinstance(row.shape, str):
        return tuple(row.shape)
    return tuple(int(times or 1) * sizes[letter] for times, letter in re.findall(r"(\d*)([A-Z])", row.shape))


class _Source(NamedTuple):
    name: str
    transposed: bool
    part: int
    parts: int


def _parse(source: str) -> _Source:
    name, _, rest = source.partition(" ")
    part, _, parts = rest.partition("/")
    return _Source(name, rest == "T", *((int(part), int(parts)) if parts else (0, 1)))


def _transpose(tensor: np.ndarray) -> np.ndarray:
    """torch's axes (out, in, ...) -> ours (..., in, out)."""
    return np.moveaxis(tensor, (1, 0), (-2, -1))


def transpose_back(array: np.ndarray) -> np.ndarray:
    """The reverse: our axes -> torch's."""
    return np.moveaxis(array, (-2, -1), (1, 0))


def stack_layers(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`layers_0/x`, `layers_1/x`, ... -> `layers/x` with a first axis for the layers; all else stays."""
    stacked, found = {}, {}
    for name, array in flat.items():
        if match := STACKED.fullmatch(name):
            found.setdefault(f"{match[1]}/{match[3]}", {})[int(match[2])] = array
        else:
            stacked[name] = array
    return stacked | {name: np.stack([arrays[i] for i in sorted(arrays)]) for name, arrays in found.items()}


def fill(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    sizes: Mapping[str, int] = {},
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
      A nested dict of float32 arrays, layers stacked.

    Raises:
      UserError: tensors are missing, left over, of another shape, or not finite in float32; it lists them.
    """
    sources = {name: _parse(row.source) for name, row in table.items()}
    named = {source.name for source in sources.values()}
    differences = [f"{name} is missing" for name in sorted(named - tensors.keys())]
    differences += [
        f"{name} has no place"
        for name in sorted(tensors.keys() - named)
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    flat = {}
    for name, row in table.items():
        source, shape = sources[name], shape_of(row, sizes)
        if source.name not in tensors:
            continue
        expected = (*shape[:-1], shape[-1] * source.parts) if shape else shape
        if source.transposed:
            expected = (*expected[:-3:-1], *expected[:-2])
        tensor = tensors[source.name]
        if tensor.shape != expected:
            differences.append(f"{source.name} has shape {tensor.shape}, not {expected}")
            continue
        tensor = _transpose(tensor) if source.transposed else tensor
        part = np.split(tensor, source.parts, -1)[source.part] if source.parts > 1 else tensor
        with np.errstate(over="ignore"):  # of float64, which is found below
            flat[name] = np.ascontiguousarray(part.astype(np.float32, casting="same_kind"))
        if not np.isfinite(flat[name]).all():
            differences.append(f"{source.name} holds numbers that are not finite")
    if differences := list(dict.fromkeys(differences)):  # parts of one tensor say the same
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError(f"{origin} does not fit this model: {'; '.join(differences[:SHOWN])}{more}")
    return unflatten_dict(stack_layers(flat), sep="/")


def spread(params: Mapping, table: Table) -> dict[str, np.ndarray]:
    """The tensors that `fill` makes these params of."""
    flat, parts = flatten_dict(unstack(params), sep="/"), {}
    for name, row in table.items():
        source, array = _parse(row.source), np.asarray(flat[name])
        parts.setdefault(source.name, {})[source.part] = transpose_back(array) if source.transposed else array
    return {
        name: np.ascontiguousarray(np.concatenate([own[i] for i in sorted(own)], -1) if len(own) > 1 else own[0])
        for name, own in parts.items()
    }


def layers_in(tensors: Iterable[str], inside: str) -> int:
    """How many layers tensors name."""
    found = (re.match(rf"{re.escape(inside)}\.([0-9]{{1,6}})\.", name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def holds_no(kind: str, tensors: Iterable[str], origin: str) -> UserError:
    """The error for a file whose tensors are of another kind of model."""
    some = ", ".join(sorted(tensors)[:2]) or "none at all"
    return UserError(f"{origin} holds no {kind} (its tensors: {some}, ...); name the weights of one")


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
      UserError: a size is missing, no whole number above 0 or too large, or a field has a value that the module
        does not compute with.
    """
    for field, known in fixed.items():
        if config.get(field, known[0]) not in known:
            raise UserError(
                f"{origin} has {field} {config[field]}; this model computes with"
                f" {' or '.join(map(str, known))}: name others"
            )
    missing = [theirs for theirs in names.values() if theirs not in config]
    if missing:
        raise UserError(f"{origin} has no field {missing[0]!r}; fetch it again, or name other weights")
    for ours, theirs in names.items():
        most = MOST_LAYERS if ours == "layers" else MOST_WHOLE
        if type(config[theirs]) is not int or config[theirs] < 1:
            raise UserError(
                f"{origin} has {theirs} {config[theirs]!r}, which is no whole number above 0; fetch it again"
            )
        if config[theirs] > most:
            raise UserError(f"{origin} has {theirs} {config[theirs]}, above {most}; fetch it again")
    return {ours: config[theirs] for ours, theirs in names.items()}
