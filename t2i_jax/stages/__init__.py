"""What a task needs around it, one file a task: data, start, evaluators, and the run that it builds on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Stage(NamedTuple):
    """What the loop is handed.

    Attributes:
      splits: Grain datasets "train" and "validation".
      transform: from an example and a numpy Generator to arrays.
      start: `(params, variables) -> (params, variables)`, called once before the first step.
      evaluate: `(params, variables) -> (scores, picture grids)`, by name.
      parents: digests of the runs that this one builds on, by name.
      frozen: parts of the model, first keys of its parameters, that stay as they are.
    """

    splits: dict
    transform: Callable
    start: Callable
    evaluate: Callable
    parents: Mapping[str, str] = MappingProxyType({})
    frozen: tuple[str, ...] = ()


Train = Callable[[Any, Any], None]
"""Trains a config in a run folder to its end."""
