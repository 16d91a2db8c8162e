"""What a config would cost, without data and without a step: parameters, memory, arithmetic, checkpoints."""

import jax

from t2i_jax import tasks
from t2i_jax.loop import matmul, parallel, setup
from t2i_jax.loop.flops import flops_of

GIGA = 1e9


def measure(config) -> dict:
    """Compile a step and read what it takes.

    Args:
      config: of any task; its weights, data and runs need not be there.

    Returns:
      `parameters` by part, `checkpoint` (bytes of the state), `state` and `scratch` (bytes on each device, resident
      and while a step runs; on CPU, where XLA widens bfloat16, more than elsewhere), `flops` (of the matrix
      products and convolutions of a step, all micro-batches, on each device) and `devices`.

    Raises:
      UserError: an unknown `config.parallel` or `config.matmul`, fields of the model that do not fit each other, or
        a batch that these devices cannot share.
    """
    parallel.kind(config)
    matmul.settle(config)
    built = setup.Setup(tasks.make(config))
    traced = built.trace(config.batch_size)
    flops = flops_of(traced.jaxpr) / jax.device_count()
    memory, state = traced.lower().compile().memory_analysis(), built.shapes
    return {
        "parameters": {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in state.params.items()},
        "checkpoint": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
        "state": memory.argument_size_in_bytes,
        "scratch": memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "flops": flops,
        "devices": jax.device_count(),
    }


def report(config) -> tuple[str, dict]:
    """`measure` as text, one line a quantity, and as it is."""
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
    return "\n".join(f"{name:<14}{line}" for name, line in lines.items()), found
