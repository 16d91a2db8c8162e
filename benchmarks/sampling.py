"""Sampling by BERT-base and GPT-2 (230 million parameters) beside torch's `generate`: a JSON line a case.

    python benchmarks/sampling.py

Both sides have random float32 weights, keep keys and values, and draw all tokens at temperature 1 without guidance.
They take turns, so that other work on the machine falls on both alike; `ratio` is torch's seconds over ours.
`products` is the share of our time that the products of the decoder's weights alone take, one after another.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from t2i_jax import models
from t2i_jax.sampling.decoding import decode

SETTINGS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "unguided_tokens": 0, "guidance_scale": 1.0}


def ours(config, params, images: int) -> Callable:
    text_ids = np.random.default_rng(0).integers(0, 64, (images, config.data.text_len), np.int32)
    condition = text_ids, np.ones(text_ids.shape, bool), np.zeros(images, bool)
    keys = jax.random.split(jax.random.key(1), images)
    draw = partial(decode, models.build(config), params, condition, keys, SETTINGS, guided=False)
    return lambda: jax.block_until_ready(draw())


def peers(config, images: int) -> Callable:
    import torch

    model, count = common.torch_pair(config).eval(), config.model.num_tokens
    text_ids = torch.randint(0, 64, (images, config.data.text_len))

    @torch.inference_mode()
    def draw():
        return model.generate(
            text_ids, attention_mask=torch.ones_like(text_ids), do_sample=True, top_k=0, eos_token_id=None,
            max_new_tokens=count, min_new_tokens=count,
        )  # fmt: skip

    return draw


def products(config, params, images: int) -> float:
    """Seconds of the decoder's products with its weights for all tokens, and of nothing else."""
    stacked = [x for x in jax.tree.leaves(params["gpt2"]["decoder"]) if x.ndim == 3]
    kernels = [x[layer] for layer in range(config.model.decoder.layers) for x in stacked]
    kernels.append(params["head"]["kernel"])

    @jax.jit
    def chain(kernels, x):
        def token(_, x):
            for kernel in kernels:
                y = jnp.resize(x, (images, kernel.shape[0])) @ kernel
                x = x + y[:, : x.shape[1]] * 1e-3
            return x

        return jax.lax.fori_loop(0, config.model.num_tokens, token, x)

    x = jnp.ones((images, config.model.decoder.width))
    jax.block_until_ready(chain(kernels, x))
    return common.seconds(partial(chain, kernels, x), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    config = common.pair_config(arguments.tokens)
    params = common.random_params(models.build(config), config.data.text_len)
    for images in arguments.images:
        draws = {"ours": ours(config, params, images), "torch": peers(config, images)}
        times = {side: [] for side in draws}
        began = time.perf_counter()
        draws["ours"]()
        first = time.perf_counter() - began
        for _ in range(arguments.repeat):
            for side, draw in draws.items():
                began = time.perf_counter()
                draw()
                times[side].append(time.perf_counter() - began)
        medians = {side: statistics.median(took) for side, took in times.items()}
        common.line(
            "sampling",
            tokens=arguments.tokens,
            images=images,
            ours=medians["ours"],
            peer=medians["torch"],
            ratio=medians["torch"] / medians["ours"],
            first_seconds=first,
            products=products(config, params, images) / medians["ours"],
        )


if __name__ == "__main__":
    main()
