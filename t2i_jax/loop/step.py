"""One optimizer step, compiled over all devices: jit over a mesh, or pmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from jax.experimental import multihost_utils

from t2i_jax.errors import UserError
from t2i_jax.loop import sharding
from t2i_jax.loop.state import State
from t2i_jax.random import stream


def train_step(state: State, batch: dict, *, loss_fn, optimizer, config, axis_name=None):
    """Gradients over `config.accumulate` micro-batches, one update, one move of the averages.

    Args:
      state: before the step.
      batch: arrays [B, ...], or a device's share of them under pmap.
      loss_fn: `(params, variables, batch, step=, rngs=, train=) -> loss, (variables, metrics)`.
      optimizer: of `state.opt_state`.
      config: `seed`, `accumulate`, `ema`.
      axis_name: the pmapped axis to average over; None under jit, where the batch is whole.

    Returns:
      State after the step, and metrics (scalars).
    """
    dropout = stream(config.seed, "dropout", state.step)
    if axis_name:
        dropout = jax.random.fold_in(dropout, jax.lax.axis_index(axis_name))

    def micro_step(carry, inputs):
        number, micro = inputs
        rngs = {"dropout": jax.random.fold_in(dropout, number)}
        (_, (variables, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.variables, micro, step=state.step, rngs=rngs, train=True
        )
        if axis_name:
            grads, variables, metrics = jax.lax.pmean((grads, variables, metrics), axis_name)
        mean, total = carry
        # A running mean: exactly what it was where nothing moves, such as in frozen batch statistics.
        mean = jax.tree.map(lambda old, new: old + (new - old) / (number + 1), mean, variables)
        return (mean, jax.tree.map(jnp.add, total, grads)), metrics

    k = config.accumulate
    # Every k-th example, so that a micro-batch lies on all devices as the batch does.
    micros = jax.tree.map(lambda x: rearrange(x, "(b k) ... -> k b ...", k=k), batch)
    zeros = jax.tree.map(jnp.zeros_like, (state.variables, state.params))
    # Averages move once a step, from where they were, by what the whole batch asks for: as with k = 1.
    (variables, grads), metrics = jax.lax.scan(micro_step, zeros, (jnp.arange(k), micros), unroll=k == 1)
    grads = jax.tree.map(lambda g: g / k, grads)
    metrics = {name: value.mean() for name, value in metrics.items()}
    metrics["gradient_norm"] = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if config.ema:
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))  # no memory of the random start
        ema_params = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema_params, params)
    return State(state.step + 1, params, opt_state, variables, ema_params), metrics


class JitStep:
    """The step jitted over a mesh of all devices: the batch is split, the state replicated or sharded."""

    def __init__(self, state: State, *, loss_fn, optimizer, config):
        self.mesh = sharding.make_mesh()
        self.state_sharding = sharding.infer(jax.eval_shape(lambda s: s, state), self.mesh, fsdp=config.fsdp)
        self._batch_sharding = sharding.batch(self.mesh)
        step = partial(train_step, loss_fn=loss_fn, optimizer=optimizer, config=config)
        self._step = jax.jit(step, donate_argnums=0, out_shardings=(self.state_sharding, None))

    def place(self, state: State) -> State:
        """The state on the mesh."""
        return jax.tree.map(lambda x, s: jax.device_put(jnp.array(x), s), state, self.state_sharding)

    def _share(self, batch: dict) -> dict:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._batch_sharding, x), batch)

    def __call__(self, state: State, batch: dict):
        """One step; `batch` is this host's share."""
        return self._step(state, self._share(batch))

    def lower(self, state: State, batch: dict) -> jax.stages.Lowered:
        """The step for shapes of a state and a batch, not run."""
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._batch_sharding) for name, x in batch.items()
        }
        placed = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, self.state_sharding
        )
        return self._step.lower(placed, batch)

    def upkeep(self, upkeep, state: State, batch: dict, key) -> State:
        """The state with `params, variables = upkeep(params, variables, batch, key)`."""
        parts = upkeep(state.params, state.variables, self._share(batch), key)
        params, variables = jax.device_put(parts, (self.state_sharding.params, self.state_sharding.variables))
        return state.replace(params=params, variables=variables)

    def gather(self, state: State) -> State:
        """The state as plain arrays, for checkpoints and evaluation."""
        return state


class PmapStep:
    """The step pmapped: every device holds the whole state and a share of the batch."""

    def __init__(self, state: State, *, loss_fn, optimizer, config):
        del state
        if config.fsdp:
            raise UserError('config.fsdp needs config.parallel = "jit"; pmap holds the whole state everywhere')
        step = partial(train_step, loss_fn=loss_fn, optimizer=optimizer, config=config, axis_name="batch")
        self._step = jax.pmap(step, axis_name="batch", donate_argnums=0)

    def place(self, state: State) -> State:
        """A copy of the state on each local device, along a new leading axis."""
        count = jax.local_device_count()
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), state)

    def __call__(self, state: State, batch: dict):
        """One step; `batch` is this host's share."""
        batch = jax.tree.map(lambda x: rearrange(x, "(d b) ... -> d b ...", d=jax.local_device_count()), batch)
        state, metrics = self._step(state, batch)
        return state, {name: value[0] for name, value in metrics.items()}

    def upkeep(self, upkeep, state: State, batch: dict, key) -> State:
        """The same, from the batch of all hosts."""
        whole = self.gather(state)
        batch = multihost_utils.process_allgather(batch, tiled=True)
        params, variables = upkeep(whole.params, whole.variables, batch, key)
        return self.place(whole.replace(params=params, variables=variables))

    def gather(self, state: State) -> State:
        """The first device's copy."""
        return jax.tree.map(lambda x: x[0], state)


KINDS = {"jit": JitStep, "pmap": PmapStep}


def check_step(config) -> None:
    """Whether there can be such a step on this machine.

    Raises:
      UserError: an unknown `config.parallel`, or a batch that the devices cannot share evenly.
    """
    if config.parallel not in KINDS:
        raise UserError(f"config.parallel {config.parallel!r} is unknown; choose {', '.join(KINDS)}")
    devices = jax.device_count()
    if config.batch_size % (devices * config.accumulate):
        raise UserError(
            f"config.batch_size {config.batch_size} is not divisible by {devices} devices x"
            f" config.accumulate {config.accumulate}; choose a multiple of {devices * config.accumulate}"
        )


def make_step(state: State, *, loss_fn, optimizer, config) -> JitStep | PmapStep:
    """The step that `config.parallel` names.

    Raises:
      UserError: see `check_step`.
    """
    check_step(config)
    return KINDS[config.parallel](state, loss_fn=loss_fn, optimizer=optimizer, config=config)
