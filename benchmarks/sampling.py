"""Sampling by BERT-base and GPT-2 (230 million parameters) beside torch's `generate`: a JSON line a case.

    python benchmarks/sampling.py

Both sides have random float32 weights, keep keys and values, and draw all tokens at temperature 1 without guidance.
They take turns, so that other work on the machine falls on both alike; `ratio` is torch's seconds over ours.
`products` is the share of our time that the products of the decoder's weights take, one after another, alone.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from benchmarks import common
from t2i_jax import models


def products(config, params, images: int) -> float:
    """Seconds of the decoder's products with its weights for all tokens, and of nothing else."""
    flat = flatten_dict(params["gpt2"]["decoder"])
    stacked = [x for path, x in flat.items() if x.ndim == 3 and path[-3:-1] not in common.OF_MEMORY]
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
        sides = {
            "ours": common.drawing(config, params, images),
            "torch": common.generating(common.torch_pair(config).eval(), config, images),
        }
        first, medians = common.in_turns(sides, arguments.repeat)
        common.line(
            "sampling",
            tokens=arguments.tokens,
            images=images,
            ours=medians["ours"],
            peer=medians["torch"],
            ratio=medians["torch"] / medians["ours"],
            first_seconds=first["ours"],
            products=products(config, params, images) / medians["ours"],
        )


if __name__ == "__main__":
    main()
