"""Training by pmap: every device holds the whole state and a part of the batch."""

from functools import cached_property, partial

import jax
import numpy as np
from einops import rearrange

from t2i_jax import hosts
from t2i_jax.errors import UserError
from t2i_jax.loop.setup import Setup
from t2i_jax.loop.state import State
from t2i_jax.loop.step import train_step
from t2i_jax.random import stream
from t2i_jax.tasks import Task


class PmapSetup(Setup):
    """As `Setup`, by pmap.

    Raises:
      UserError: as `Setup`, a mesh that splits the state, or several hosts.
    """

    def __init__(self, task: Task):
        if task.config.mesh.fsdp != 1 or task.config.mesh.tensor != 1:
            raise UserError('config.mesh.fsdp and .tensor need config.parallel = "jit"; pmap holds the whole state')
        if not hosts.alone():
            raise UserError('config.parallel = "pmap" is for one host; several need "jit"')
        super().__init__(task)

    @cached_property
    def _step(self):
        options = {"phases": self.phases, "optimizers": self.optimizers, "config": self.config}
        return jax.pmap(partial(train_step, **options, axis_name="batch"), axis_name="batch", donate_argnums=0)

    def place(self, state: State) -> State:
        """A copy of the state on each local device, along a new leading axis."""
        count = jax.device_count()
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), state)

    def gather(self, state: State) -> State:
        """The first device's copy."""
        return jax.tree.map(lambda x: x[0], state)

    def step(self, state: State, batch: dict) -> tuple[State, dict]:
        batch = jax.tree.map(lambda x: rearrange(x, "(d b) ... -> d b ...", d=jax.device_count()), batch)
        state, metrics = self._step(state, batch)
        return state, {name: value[0] for name, value in metrics.items()}

    def trace(self, size: int) -> jax.stages.Traced:
        """That of `Setup`: all devices together compute the same."""
        return Setup(self.task).trace(size)

    def between_steps(self, state: State, batch: dict, number: int) -> State:
        whole = self.gather(state)
        key = stream(self.config.seed, "between_steps", number)
        params, variables = self._between(whole.params, whole.variables, batch, key)
        return self.place(whole.replace(params=params, variables=variables))
