"""What a config would cost, without data and without a step: parameters, memory, arithmetic, checkpoints."""

from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct

from t2i_jax import models
from t2i_jax.errors import UserError
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State
from t2i_jax.loop.step import JitStep, check_step
from t2i_jax.random import stream
from t2i_jax.stages.backbone import optim_of

GIGA = 1e9


def batch_of(config, size: int) -> dict:
    """Shapes of what `config.task` hands to its model: arrays [size, ...]."""
    data, model = config.data, config.model
    if config.task in ("reconstruct", "dvae", "autoencode"):
        shape = (size, data.image_size, data.image_size, data.channels)
        return {"image": ShapeDtypeStruct(shape, jnp.float32)}
    ids = ShapeDtypeStruct((size, model.num_tokens), jnp.int32)
    return {
        "ids": ids,
        "decoder_ids": ids,
        "text_ids": ShapeDtypeStruct((size, data.text_len), jnp.int32),
        "text_mask": ShapeDtypeStruct((size, data.text_len), jnp.bool_),
        "null": ShapeDtypeStruct((size,), jnp.bool_),
    }


def measure(config) -> dict:
    """Compile a step of one micro-batch and read what it takes.

    Args:
      config: of any task; its weights, data and runs need not be there.

    Returns:
      `parameters` by part, `checkpoint` (bytes of the state), `state` and `scratch` (bytes on each device, resident
      and while a step runs; on CPU, where XLA widens bfloat16, more than elsewhere), `flops` (of a step, all
      micro-batches, as XLA counts them on each device: of Muon's five iterations one) and `devices`.

    Raises:
      UserError: fields of the model that do not fit each other, or a batch that these devices cannot share.
    """
    check_step(config)
    task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
    batch = batch_of(config, config.batch_size // config.accumulate)
    try:
        variables = jax.eval_shape(partial(task.init, model), stream(config.seed, "init"), batch)
    except (ValueError, TypeError) as error:  # models say so where their fields do not fit each other
        raise UserError(f"config.model: {str(error).splitlines()[0]}") from error
    params = variables.pop("params")
    optimizer = make_optimizer(optim_of(config), config.steps)
    state = jax.eval_shape(lambda p, v: State.create(p, v, optimizer, config.ema), params, variables)
    once = config.copy_and_resolve_references()
    once.unlock()
    once.accumulate, once.batch_size = 1, config.batch_size // config.accumulate
    loss_fn = partial(task.loss_fn, model, **config.loss)
    jitted = JitStep(state, loss_fn=loss_fn, optimizer=optimizer, config=once)
    step, places = jitted.lower(state, batch).compile(), jitted.state_sharding
    memory, flops = step.memory_analysis(), step.cost_analysis()["flops"]
    if config.accumulate > 1:  # one update, however many micro-batches
        update = jax.jit(optimizer.update, in_shardings=(places.params, places.opt_state, places.params))
        update = update.lower(params, state.opt_state, params).compile().cost_analysis()["flops"]
        flops += (config.accumulate - 1) * (flops - update)
    return {
        "parameters": {part: _count(tree) for part, tree in params.items()},
        "checkpoint": _bytes(state),
        "state": memory.argument_size_in_bytes,
        "scratch": memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + (_bytes(params) if config.accumulate > 1 else 0),  # summed gradients
        "flops": flops,
        "devices": jax.device_count(),
    }


def report(config) -> str:
    """`measure` as text, one line a quantity."""
    found = measure(config)
    parts = ", ".join(f"{part} {count:,}" for part, count in found["parameters"].items())
    devices = f"each of {found['devices']} {jax.devices()[0].platform} device(s)"
    lines = {
        "parameters": f"{sum(found['parameters'].values()):,} ({parts})",
        "memory": f"{found['state'] / GIGA:.2f} GB of state and batch, {found['scratch'] / GIGA:.2f} GB while a"
        f" step runs, on {devices}",
        "a step": f"{found['flops'] / GIGA:,.1f} GFLOP on {devices}, {config.accumulate} x"
        f" {config.batch_size // config.accumulate} examples",
        "a checkpoint": f"{found['checkpoint'] / GIGA:.2f} GB, of which {config.keep_checkpoints} are kept",
    }
    return "\n".join(f"{name:<14}{line}" for name, line in lines.items())


def _count(tree) -> int:
    return int(sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(tree)))


def _bytes(tree) -> int:
    return int(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
