"""The training state: data alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.tasks import Phase


@struct.dataclass
class State:
    """All that a step reads and writes.

    Attributes:
      step: int32 [], optimizer steps done.
      params: what the optimizers train.
      opt_state: the optimizers', by phase.
      variables: every other collection of the model (EMA codebook, batch statistics).
      ema_params: averaged params, or an empty dict where `config.ema` is 0.
    """

    step: Any
    params: Any
    opt_state: Any
    variables: Any
    ema_params: Any

    @classmethod
    def create(
        cls,
        params,
        variables,
        phases: Sequence[Phase],
        optimizers: Mapping[str, optax.GradientTransformation],
        ema: float,
    ) -> "State":
        """The state before the first step."""
        opt_state = {phase.name: optimizers[phase.name].init(split(params, phase.trains)[0]) for phase in phases}
        return cls(jnp.zeros((), jnp.int32), params, opt_state, variables, params if ema else {})

    @property
    def eval_params(self):
        """The params to evaluate and sample with: averaged ones where there are any."""
        return self.ema_params or self.params


def split(params: Mapping, trains: str) -> tuple[dict, dict]:
    """Params that a phase trains, and the others.

    Args:
      params: nested dict.
      trains: see `Phase`.
    """
    if not trains:
        return params, {}
    flat = flatten_dict(params)
    trained = {path: x for path, x in flat.items() if re.search(trains, "/".join(path))}
    others = {path: x for path, x in flat.items() if path not in trained}
    return unflatten_dict(trained), unflatten_dict(others)


def merge(trained: Mapping, others: Mapping) -> dict:
    """The reverse of `split`."""
    if not others:
        return trained
    return unflatten_dict(flatten_dict(trained) | flatten_dict(others))
