"""Training and sampling at the size of `translator:coco` on one accelerator, in bfloat16: a JSON line a case.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --tiny    # the same cases by the quick start's translator, on any machine

Lines come as they are measured, so that a run that is cut off still tells:

  device    bytes/s (read and written) of a copy, FLOP/s of a product in bfloat16
  training  the jitted step on a batch already on the device. `mfu` is the share of `PEAKS` of `loop/speed.py` that
            the products of the model make up: what is computed again does not count, attention as causal
  sampling  all tokens of so many images at once, with and without guidance; and window decoding. `bandwidth` is
            the share of the copy's that reading the decoder's weights and the whole cache in each pass makes
  torch     the same images by the `generate` of transformers with a static cache; `ratio` is our rate over theirs
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from benchmarks import common
from t2i_jax import models, tasks
from t2i_jax.config import load_config
from t2i_jax.loop.setup import Setup
from t2i_jax.loop.speed import PEAKS


def config_of(tiny: bool, *overrides: str):
    """`translator:coco`, or the quick start's translator in its type."""
    if tiny:
        return load_config("translator:digits", ["--config.model.dtype=bfloat16"])
    return load_config("translator:coco", [f"--config.{field}" for field in overrides])


def model_flops(model) -> float:
    """Of the products of one example's step, forward and back; a multiplication with its addition is 2."""

    def layer(part, of_self):  # products with weights, each position
        return of_self * part.width**2 + 2 * part.width * part.mlp_width

    enc, dec, n, s = model.encoder, model.decoder, model.num_tokens, model.text_len
    encoder = enc.layers * (s * layer(enc, 4) + 2 * s * s * enc.width)
    of_memory = 2 * s * dec.width**2
    decoder = dec.layers * (n * layer(dec, 6) + of_memory + n * n * dec.width + 2 * n * s * dec.width)
    return 3 * 2 * (encoder + decoder + n * dec.width * model.codebook_size)


def device(tiny: bool) -> float:
    """Bytes/s of a copy; prints a line."""
    size, n = (2**20, 256) if tiny else (2**30, 8192)
    x, a = jnp.ones(size, jnp.float32), jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
    work = partial(jax.jit(lambda x: x + 1), x), partial(jax.jit(jnp.matmul), a, a)
    for _ in range(3):  # clocks rise
        jax.block_until_ready([function() for function in work])
    copying, multiplying = map(common.seconds, work)
    common.line("device", copy=8 * size / copying, product=2 * n**3 / multiplying)
    return 8 * size / copying


def train(config, steps: int) -> None:
    """One line."""
    began = time.perf_counter()
    built = Setup(tasks.make(config))
    lowered = built.trace(config.batch_size).lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    batch = common.made_up(built.task.batch_spec(config.batch_size), config.model.codebook_size)
    state, batch = built.init(), built.split_batch(batch)
    state, metrics = jax.block_until_ready(compiled(state, batch))

    def some():
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, batch)
        return metrics

    took = common.seconds(some) / steps
    rate = config.batch_size / took
    peak = PEAKS.get(jax.devices()[0].device_kind)
    stats = jax.devices()[0].memory_stats() or {}
    common.line(
        "training",
        batch=f"{config.batch_size} in {config.accumulate}",
        tokens=config.model.num_tokens,
        remat=config.model.decoder.remat,
        step_seconds=took,
        examples_per_second=rate,
        mfu=rate * model_flops(config.model) / peak if peak else None,
        trace_seconds=traced - began,
        compile_seconds=done - traced,
        scratch_gigabytes=compiled.memory_analysis().temp_size_in_bytes / 1e9,
        peak_gigabytes=stats.get("peak_bytes_in_use", 0) / 1e9,
        loss=float(metrics["loss"]),
        fused_attention="fmha" in compiled.as_text(),
    )


def sample(config, params, images: int, scale: float, copy: float, window: int = 1) -> float:
    """Tokens/s; prints a line."""
    draw = common.drawing(config, params, images, scale, window)
    began = time.perf_counter()
    passes = int(jax.block_until_ready(draw())[1])
    first = time.perf_counter() - began
    repeat = 5 if images <= 16 else 3
    took = common.seconds(draw, repeat)
    model, rows = config.model, images * (1 if scale == 1 else 2)
    cache = 2 * rows * model.decoder.layers * (model.num_tokens + model.text_len) * model.decoder.width
    read = passes * (common.weights_read(params) + cache) * jnp.dtype(model.dtype).itemsize
    rate = images * model.num_tokens / took
    common.line(
        "sampling",
        images=images,
        tokens=model.num_tokens,
        guidance=scale,
        window=window,
        passes=passes,
        repeat=repeat,
        seconds=took,
        first_seconds=first,
        tokens_per_second=rate,
        bandwidth=read / copy / took,
    )
    return rate


def generate(config, images: int, ours: float) -> None:
    """One line of the peer's."""
    import torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    model = common.torch_pair(config).to(place, torch.bfloat16).eval()
    draw = common.generating(model, config, images, cache_implementation="static")
    first, medians = common.in_turns({"torch": draw}, 3)  # the first compiles
    rate = images * config.model.num_tokens / medians["torch"]
    common.line(
        "torch",
        images=images,
        tokens=config.model.num_tokens,
        seconds=medians["torch"],
        first_seconds=first["torch"],
        tokens_per_second=rate,
        ratio=ours / rate,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", default=["training", "sampling", "torch"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64, 256])
    arguments = parser.parse_args()
    tiny, only = arguments.tiny, arguments.only
    copy, rates = device(tiny), {}
    if "training" in only:
        train(config_of(tiny), 2)
        if not tiny:
            kept = [f"model.{part}.remat=dots" for part in ("encoder", "decoder")]
            train(config_of(tiny, "batch_size=64", "accumulate=1", *kept), 4)
    config = config_of(tiny)
    batches = [1, 2] if tiny else arguments.batches
    if "sampling" in only:
        params = common.random_params(models.build(config), config.data.text_len)
        for scale in (1.0, 3.0):
            for images in batches:
                rates[images, scale] = sample(config, params, images, scale, copy)
        sample(config, params, 1, 1.0, copy, window=8)
    if "torch" in only:
        for batch in sorted(batches, key=lambda batch: batch not in (1, 64)):  # should the time be short
            generate(config, batch, rates.get((batch, 1.0), float("nan")))


if __name__ == "__main__":
    main()
