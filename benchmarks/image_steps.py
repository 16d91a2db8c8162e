"""Images a second and memory of training steps on pictures made up in the shape of CIFAR10: a table on stdout.

    python benchmarks/image_steps.py --batch-size 512 --dtype bfloat16

ResNets hold random numbers instead of released weights, and are frozen as those are.
"""

import argparse
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from t2i_jax import models
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State
from t2i_jax.loop.step import JitStep
from t2i_jax.stages.backbone import frozen_parts

CONFIGS = (("vae", "cifar10"), ("vae", "cifar10_resnet"), ("vqvae", "cifar10"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"{jax.device_count()} x {device.device_kind}, batch {arguments.batch_size}, {arguments.dtype}\n")
    print("| config | images/s | state, MB | while a step runs, MB |\n|---|---|---|---|")
    for name, variant in CONFIGS:
        config = import_module(f"configs.{name}").get_config(variant)
        config.batch_size, config.model.dtype = arguments.batch_size, arguments.dtype
        task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
        side = config.data.image_size
        images = np.random.default_rng(0).random((config.batch_size, side, side, config.data.channels), np.float32)
        variables = jax.jit(partial(task.init, model))(jax.random.key(0), {"image": images[:1]})
        optimizer = make_optimizer(config.optim, config.steps, frozen_parts(config.model))
        state = State.create(variables.pop("params"), variables, optimizer, config.ema)
        loss_fn = partial(task.loss_fn, model, **config.loss)
        step = JitStep(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
        memory = step.lower(state, {"image": images}).compile().memory_analysis()
        state = step.place(state)
        state, _ = jax.block_until_ready(step(state, {"image": images}))
        start = time.perf_counter()
        for _ in range(arguments.steps):
            state, metrics = step(state, {"image": images})
        jax.block_until_ready((state, metrics))
        rate = arguments.steps * arguments.batch_size / (time.perf_counter() - start)
        resident, scratch = (x / 1e6 for x in (memory.argument_size_in_bytes, memory.temp_size_in_bytes))
        print(f"| `{name}.py:{variant}` | {rate:,.0f} | {resident:,.0f} | {scratch:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
