"""Examples a second and memory of training steps, on numbers made up in the shape of the data: a table on stdout.

    python benchmarks/steps.py vae:cifar10 vqvae:cifar10 --batch-size 512 --dtype bfloat16
    python benchmarks/steps.py translator:coco --sample 64

ResNets hold random numbers instead of released weights, and are frozen as those are; BERT and GPT-2 likewise hold
random numbers, and are trained as the config says.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from benchmarks.common import made_up
from t2i_jax import sampling, tasks
from t2i_jax.config import load_config
from t2i_jax.loop.setup import Setup


def train(config, steps: int) -> tuple:
    """Examples a second, and megabytes of the state and of what a step needs beside it; and the trained state."""
    built = Setup(tasks.make(config))
    compiled = built.trace(config.batch_size).lower().compile()  # once: a jitted call would do so again
    memory = compiled.memory_analysis()
    state, batch = built.init(), built.split_batch(made_up(built.task.batch_spec(config.batch_size)))
    state, _ = jax.block_until_ready(compiled(state, batch))
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = compiled(state, batch)
    jax.block_until_ready((state, metrics))
    rate = steps * config.batch_size / (time.perf_counter() - start)
    return rate, memory.argument_size_in_bytes / 1e6, memory.temp_size_in_bytes / 1e6, state


def sample(config, params, count: int) -> float:
    """Seconds to draw `count` pictures' tokens at once with the config's own settings."""
    task, sampler = tasks.make(config), sampling.make(config.sampling)
    batch = made_up(task.batch_spec(count))
    keys = jax.random.split(jax.random.key(0), count)
    condition = batch["text_ids"], batch["text_mask"], jnp.zeros(count, bool)
    draw = partial(sampler.draw, task.model, params, condition, keys)
    jax.block_until_ready(draw())
    start = time.perf_counter()
    jax.block_until_ready(draw())
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", metavar="NAME:VARIANT", help="files of configs/")
    parser.add_argument("--batch-size", type=int, help="the config's own where left out")
    parser.add_argument("--dtype", help="the config's own where left out")
    parser.add_argument("--matmul", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sample", type=int, help="draw so many pictures at once as well")
    arguments = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| config | batch | type | examples/s | state, MB | while a step runs, MB |\n|---|---|---|---|---|---|")
    drawn = []
    for name in arguments.configs:
        file, variant = name.split(":")
        config = load_config(f"{file}:{variant}")
        config.batch_size = arguments.batch_size or config.batch_size
        config.model.dtype = arguments.dtype or config.model.get("dtype", "float32")
        config.matmul = arguments.matmul
        rate, resident, scratch, state = train(config, arguments.steps)
        batch = f"{config.batch_size} in {config.accumulate}" if config.accumulate > 1 else config.batch_size
        numbers = (f"{number:,.0f}" for number in (rate, resident, scratch))
        row = (f"`{file}.py:{variant}`", batch, config.model.dtype, *numbers)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        if arguments.sample:
            seconds = sample(config, state.params, arguments.sample)
            rate = arguments.sample * config.model.num_tokens / seconds
            drawn.append(
                f"`{file}.py:{variant}` draws {arguments.sample} pictures of {config.model.num_tokens} tokens in"
                f" {seconds:.2f} s, {rate:,.0f} tokens/s, guidance {config.sampling.guidance_scale:g}"
            )
        del state
    print("", *drawn, sep="\n")


if __name__ == "__main__":
    main()
