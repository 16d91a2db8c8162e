"""One training step: for each phase, gradients over micro-batches and an update; then averages."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from t2i_jax.loop.state import State, merge, split
from t2i_jax.nn.products import factors_type
from t2i_jax.random import stream
from t2i_jax.tasks import Phase


def train_step(
    state: State,
    batch: dict,
    *,
    phases: Sequence[Phase],
    optimizers: Mapping[str, optax.GradientTransformation],
    config,
    axis_name: str | None = None,
) -> tuple[State, dict]:
    """One update by each phase, in order, and one move of the averages.

    Args:
      state: before the step.
      batch: arrays [B, ...], or a device's part of them under pmap.
      phases: of the task.
      optimizers: of `state.opt_state`, by phase.
      config: `seed`, `accumulate`, `ema`, `skip_nonfinite`, `matmul` (settled).
      axis_name: the pmapped axis to average over; None under jit, where the batch is whole.

    Returns:
      State after the step, and metrics: scalars, with several phases "PHASE/NAME" and the sums `loss` and
      `gradient_norm`. Where `skip_nonfinite` is above 0, and the loss, the gradient's norm or anything in the new
      state is not finite, the state is the one before but for its step, and the metric `skipped` is true.
    """
    params, variables, opt_state, metrics = state.params, state.variables, dict(state.opt_state), {}
    for number, phase in enumerate(phases):
        trained, others = split(params, phase)
        keys = {name: stream(config.seed, name, state.step) for name in ("dropout", "noise")}
        if number:
            keys = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
        with factors_type(config.matmul):
            variables, grads, values = _gradients(
                phase, trained, others, variables, batch, state.step, keys, config.accumulate, axis_name
            )
        values["gradient_norm"] = optax.tree.norm(grads)
        updates, opt_state[phase.name] = optimizers[phase.name].update(grads, opt_state[phase.name], trained)
        params = merge(optax.apply_updates(trained, updates), others)
        prefix = f"{phase.name}/" if len(phases) > 1 else ""
        metrics |= {prefix + name: value for name, value in values.items()}
    if len(phases) > 1:
        metrics["loss"] = sum(metrics[f"{phase.name}/loss"] for phase in phases)
        metrics["gradient_norm"] = sum(metrics[f"{phase.name}/gradient_norm"] for phase in phases)
    ema_params = state.ema_params
    if config.ema:
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))  # no memory of the random start
        ema_params = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema_params, params)
    moved = State(state.step + 1, params, opt_state, variables, ema_params)
    if config.skip_nonfinite:
        kept = all_finite((moved, metrics["loss"], metrics["gradient_norm"]))
        moved = jax.tree.map(partial(jnp.where, kept), moved, state.replace(step=moved.step))
        metrics["skipped"] = ~kept
    return moved, metrics


def all_finite(tree) -> jax.Array:
    """Whether every number in a tree is finite, a bool []."""
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()


def _gradients(phase, trained, others, variables, batch, step, keys, accumulate, axis_name):
    """Variables, gradients and metrics of one phase, means over `accumulate` micro-batches and pmapped devices.

    Args:
      trained, others: params that the phase trains, and those that it only reads.
      keys: random keys by stream; each device and each micro-batch folds in its number.
      batch: see `train_step`; its rows are divisible by `accumulate`.
    """
    if axis_name:
        keys = {name: jax.random.fold_in(key, jax.lax.axis_index(axis_name)) for name, key in keys.items()}

    def loss_fn(trained, micro, rngs):
        return phase.loss_fn(merge(trained, others), variables, micro, step=step, rngs=rngs, train=True)

    def micro_step(carry, inputs):
        number, micro = inputs
        rngs = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
        (_, (moved, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained, micro, rngs)
        if axis_name:
            grads, moved, metrics = jax.lax.pmean((grads, moved, metrics), axis_name)
        mean, total = carry
        # A running mean: exactly what it was where nothing moves, such as in frozen batch statistics.
        mean = jax.tree.map(lambda old, new: old + (new - old) / (number + 1), mean, moved)
        return (mean, jax.tree.map(jnp.add, total, grads)), metrics

    # Every k-th example, so that a micro-batch lies on all devices as the batch does.
    micros = jax.tree.map(lambda x: rearrange(x, "(b k) ... -> k b ...", k=accumulate), batch)
    zeros = jax.tree.map(jnp.zeros_like, (variables, trained))
    # Averages move once a step, from where they were, by what the whole batch asks for: as with one micro-batch.
    inputs = (jnp.arange(accumulate), micros)
    (variables, grads), metrics = jax.lax.scan(micro_step, zeros, inputs, unroll=accumulate == 1)
    grads = jax.tree.map(lambda g: g / accumulate, grads)
    return variables, grads, {name: value.mean() for name, value in metrics.items()}
