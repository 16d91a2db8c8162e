"""The training state: data alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.lr_multipliers import is_frozen
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
        opt_state = {phase.name: optimizers[phase.name].init(split(params, phase)[0]) for phase in phases}
        return cls(jnp.zeros((), jnp.int32), params, opt_state, variables, params if ema else {})

    @property
    def eval_params(self):
        """The params to evaluate and sample with: averaged ones where there are any."""
        return self.ema_params or self.params


def split(params: Mapping, phase: Phase) -> tuple[dict, dict]:
    """Params that a phase trains, and the others: what its pattern leaves out, or whose learning rate is 0.

    A phase whose parameters are all frozen trains none: of several, one can be held while the others go on.

    Raises:
      ValueError: its pattern is found nowhere.
    """
    flat = flatten_dict(params, sep="/")
    own = [path for path in flat if re.search(phase.trains, path)]
    if not own:
        raise ValueError(f"phase {phase.name} trains {phase.trains!r}, which is in no path of {', '.join(params)}")
    trained = {path: flat[path] for path in own if not is_frozen(phase.optim, path)}
    others = {path: x for path, x in flat.items() if path not in trained}
    return unflatten_dict(trained, sep="/"), unflatten_dict(others, sep="/")


def merge(trained: Mapping, others: Mapping) -> dict:
    """The reverse of `split`."""
    if not others:
        return trained
    return unflatten_dict(flatten_dict(trained) | flatten_dict(others))
