"""The training state: data alone."""

from typing import Any

import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class State:
    """All that a step reads and writes.

    Attributes:
      step: int32 [], optimizer steps done.
      params: what the optimizer trains.
      opt_state: the optimizer's.
      variables: every other collection of the model (EMA codebook, batch statistics).
      ema_params: averaged params, or an empty dict where `config.ema` is 0.
    """

    step: Any
    params: Any
    opt_state: Any
    variables: Any
    ema_params: Any

    @classmethod
    def create(cls, params, variables, optimizer: optax.GradientTransformation, ema: float) -> "State":
        """The state before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params), variables, params if ema else {})

    @property
    def eval_params(self):
        """The params to evaluate and sample with: averaged ones where there are any."""
        return self.ema_params or self.params
