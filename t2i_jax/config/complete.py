"""Defaults: a config lists what differs from them; they stand in the model, the sampler and the loss alone."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import UnionType
from typing import Any, get_origin

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from t2i_jax import models, sampling, tasks
from t2i_jax.errors import UserError, near_miss
from t2i_jax.loop.optimizer import Optim

LOSS_ARGUMENTS = ("step", "rngs", "train")  # what every loss is called with; its other keywords are `config.loss`


def complete(config: ConfigDict) -> ConfigDict:
    """Add, in place, every field that a config leaves to its default, in its parents too.

    A field without a default is added without a value: `fill_sizes` gives it one.

    Args:
      config: what `get_config` of a config file returned.

    Returns:
      The same config.

    Raises:
      UserError: the config sets a field that does not exist, or lacks one.
    """
    for parent in config.get("parents", {}).values():
        complete(parent.config)
    _add(config.model, model_fields(config), "config.model")
    if config.sampling:
        own = fields_of(sampling.kind(config.sampling.name))
        _add(config.sampling, {"name": config.sampling.name, **own}, "config.sampling")
    for name in [name for name in config if name.endswith("optim")]:  # a phase may have its own
        _add(config[name], fields_of(Optim), f"config.{name}")
    for name, part in tasks.find(config.task).parts.items():
        if name in config:
            _add(config[name], fields_of(part), f"config.{name}")
    _add(config.loss, _loss_fields(config), "config.loss")
    return config


def model_fields(config: ConfigDict) -> dict[str, Any]:
    """Fields of `config.model` with their defaults; those of `PARTS`, which a model file may have, in dicts."""
    module = models.find(config.model_name)
    fields = fields_of(module.Model)
    for name, part in getattr(module, "PARTS", {}).items():
        if isinstance(part, Mapping):  # by the name of a kind
            fields[name] = {kind: _options(make) for kind, make in part.items()}
        else:
            own = fields_of(part).items()
            # What has no default, and the type, the model itself hands to its parts.
            fields[name] = {key: value for key, value in own if key != "dtype" and not isinstance(value, Required)}
    return fields


def fields_of(cls: type) -> dict[str, Any]:
    """Fields of a dataclass with their defaults; `Required(type)` for one without."""
    fields = {}
    for field in dataclasses.fields(cls):
        if field.name in ("parent", "name"):  # Flax's own
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            several = isinstance(field.type, UnionType)
            default = Required(object if several else get_origin(field.type) or field.type)
        if not isinstance(default, Callable):
            fields[field.name] = dict(default) if isinstance(default, Mapping) else default
    return fields


@dataclasses.dataclass(frozen=True)
class Required:
    """Stands for the default of a field that has none; `object` is any of several types, None is one of a loss."""

    type: type | None


def _options(make: type | partial) -> dict[str, float]:
    """What a kind of quantizer can be set to: its numbers with a fraction, and those that its kind sets."""
    cls, given = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    options = {name: value for name, value in fields_of(cls).items() if isinstance(value, float)}
    return options | {name: value for name, value in given.items() if type(value) in (int, float)}


def _loss_fields(config: ConfigDict) -> dict[str, Any]:
    loss_fn = tasks.find(config.task).loss_fn
    if loss_fn is None:  # several losses, whose settings the task knows
        return dict(config.loss)
    parameters = inspect.signature(loss_fn).parameters.values()
    return {
        parameter.name: Required(None) if parameter.default is parameter.empty else parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in LOSS_ARGUMENTS
    }


def no_field(path: str, name: str, known: Iterable[str]) -> str:
    """Says that what lies at a path has no such field, and the nearest that it has, or all of them."""
    return f"{path} has no field {name!r}; " + (near_miss(name, known) or f"it has {', '.join(known) or 'none'}")


def _add(config: ConfigDict, fields: Mapping[str, Any], path: str) -> None:
    for name in config:
        if name not in fields:
            raise UserError(no_field(path, name, fields))
    for name, default in fields.items():
        if isinstance(default, dict):
            if name not in config:
                config[name] = {}
            if default:  # else its keys are the user's own
                _add(config[name], default, f"{path}.{name}")
        elif name in config:
            continue
        elif not isinstance(default, Required):
            config[name] = default
        elif default.type is None:  # it follows from nothing
            raise UserError(f"{path} lacks {name!r}, which has no default; set it in the config file")
        else:
            config[name] = placeholder(default.type)
