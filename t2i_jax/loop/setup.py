"""From a config to what trains it: model, phases, optimizers, shardings, jitted initialisation and step.

Shapes first, then shardings from rules, then initialisation compiled with those shardings: no device ever holds a
state that only all of them together can hold.
"""

from functools import cached_property, partial

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from t2i_jax.errors import UserError
from t2i_jax.loop import sharding
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State, split
from t2i_jax.loop.step import train_step
from t2i_jax.lr_multipliers import deepest
from t2i_jax.random import stream
from t2i_jax.tasks import Task


class Setup:
    """What trains a task by jit over a mesh of all devices: the batch is split, the state as its rules say.

    Attributes:
      task: with its config and model.
      phases: of the task.
      optimizers: by phase.
      mesh: of `config.mesh`.
      shapes: of the state, with their shardings.

    Raises:
      UserError: fields of the model, the loss, the optimizer or the mesh that do not fit, or a batch that the
        devices cannot share.
    """

    def __init__(self, task: Task):
        self.task, self.config = task, task.config
        check_batch(self.config)
        self.mesh = sharding.make_mesh(self.config.mesh)
        self.phases = task.phases()
        self.optimizers = {phase.name: make_optimizer(phase.optim, self.config.steps) for phase in self.phases}
        try:
            shapes = jax.eval_shape(self._create, jax.random.key(0))
        except UserError as error:  # jax adds lines to what is raised while it traces
            raise UserError(str(error).splitlines()[0]) from error
        except (ValueError, TypeError) as error:  # models say so where their fields do not fit each other
            raise UserError(f"config.model: {str(error).splitlines()[0]}") from error
        self._state_sharding = sharding.infer(shapes, self.mesh, self.config.sharding_rules)
        self._check_multipliers(shapes.params)
        self.shapes = jax.tree.map(lambda x, place: x.update(sharding=place), shapes, self._state_sharding)

    def _check_multipliers(self, params) -> None:
        if not any(split(params, phase)[0] for phase in self.phases):
            raise UserError("every parameter is frozen; see config.optim.lr_multipliers")
        paths = flatten_dict(params, sep="/")
        for phase in self.phases:
            for part in phase.optim.get("lr_multipliers", {}):
                if not any(deepest([part], path) for path in paths):
                    field = f"config.optim.lr_multipliers.{part}"
                    if len(self.phases) > 1:
                        field = f"lr_multipliers.{part} of phase {phase.name}"
                    raise UserError(f"{field} names no part of this model: {', '.join(params)}")

    def _create(self, key) -> State:
        batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in self.task.batch_spec(1).items()}
        variables = dict(self.task.init(key, batch))
        params = variables.pop("params")
        return State.create(params, variables, self.phases, self.optimizers, self.config.ema)

    def init(self) -> State:
        """A fresh state, each part on the devices that hold it."""
        return jax.jit(self._create, out_shardings=self._state_sharding)(stream(self.config.seed, "init"))

    def start(self) -> State:
        """A fresh state after the task's warm start, and with what fits of the run `config.init_from`."""
        state = self.init()
        parts = self.task.warm_start(state.params, state.variables, stream(self.config.seed, "start"))
        if self.config.init_from:
            parts = self.task.from_run(*parts)
        return self.with_variables(state, *parts)

    def with_variables(self, state: State, params, variables) -> State:
        """A state before the first step, with other params and variables."""
        place = self._state_sharding
        params, variables = jax.device_put((params, variables), (place.params, place.variables))
        return state.replace(
            params=params,
            variables=variables,
            ema_params=jax.tree.map(jnp.copy, params) if self.config.ema else {},
        )

    @cached_property
    def _step(self):
        step = partial(train_step, phases=self.phases, optimizers=self.optimizers, config=self.config)
        return jax.jit(step, donate_argnums=0, out_shardings=(self._state_sharding, None))

    def split_batch(self, batch: dict) -> dict:
        """This host's part of a batch, on its devices."""
        place = sharding.batch(self.mesh)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), batch)

    def step(self, state: State, batch: dict) -> tuple[State, dict]:
        """One step.

        Args:
          state: of `place` or of `step`; it is gone afterwards.
          batch: this host's part, on the host.

        Returns:
          The state after it, and its metrics; see `step.train_step`. Neither is waited for.
        """
        batch = self.split_batch(batch)
        # Whatever else came from the host would stall the devices.
        with jax.transfer_guard_host_to_device("disallow"):
            return self._step(state, batch)

    def trace(self, size: int) -> jax.stages.Traced:
        """The step for a batch of `size` examples, not run: `.jaxpr`, and `.lower().compile()`."""
        place = sharding.batch(self.mesh)
        batch = jax.tree.map(lambda x: x.update(sharding=place), self.task.batch_spec(size))
        return self._step.trace(self.shapes, batch)

    @cached_property
    def _between(self):
        return jax.jit(self.task.between_steps)

    def between_steps(self, state: State, batch: dict, number: int) -> State:
        """The state after the task's work between steps, before step `number`."""
        key = stream(self.config.seed, "between_steps", number)
        parts = self._between(state.params, state.variables, self.split_batch(batch), key)
        place = self._state_sharding
        params, variables = jax.device_put(parts, (place.params, place.variables))
        return state.replace(params=params, variables=variables)

    def place(self, state: State) -> State:
        """A state of `init`, `start` or a checkpoint as `step` reads it."""
        return state

    def gather(self, state: State) -> State:
        """A state of `step` as checkpoints and evaluators read it."""
        return state


def check_batch(config) -> None:
    """Whether the devices can share a batch.

    Raises:
      UserError: they cannot evenly.
    """
    devices = max(1, jax.device_count() // max(1, config.mesh.tensor))
    if config.batch_size % (devices * config.accumulate):
        raise UserError(
            f"config.batch_size {config.batch_size} is not divisible by {devices} devices x"
            f" config.accumulate {config.accumulate}; choose a multiple of {devices * config.accumulate}"
        )
