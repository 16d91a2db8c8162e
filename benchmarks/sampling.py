"""Sampling by BERT-base and GPT-2 (230 million parameters) beside torch's `generate`: a JSON line a case.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --run runs/quickstart/translator

Both sides have random float32 weights, keep keys and values, and draw all tokens at temperature 1 without guidance.
They take turns, so that other work on the machine falls on both alike; `ratio` is torch's seconds over ours.
`products` is the share of our time that the products of the decoder's weights take, one after another, alone. There
is a line for each number of bits of our weights; torch's are float32 in all of them.

With --run nothing is timed: of pictures that the run draws, how far the logits of each token move with fewer bits.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

import t2i_jax
from benchmarks import common
from t2i_jax import models
from t2i_jax.nn.stack import unstack, with_bits


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


def changes(run: str, captions: list[str], count: int = 16) -> None:
    """A line for 16 and for 8 bits: what becomes of the logits of tokens that a run draws with 32."""
    pipe = t2i_jax.load(run)
    prompts = [caption for caption in captions for _ in range(count)]
    ids = pipe.draw_ids(prompts, np.tile(np.arange(count), len(captions)), 0, pipe.sampling)
    text_ids, text_mask = pipe._encode(prompts)

    @partial(jax.jit, static_argnames="bits")
    def log_probabilities(params, bits):
        logits = pipe._model.apply({"params": with_bits(unstack(params), bits)}, text_ids, text_mask, ids)
        return logits - logits.mean(-1, keepdims=True), jax.nn.log_softmax(logits)

    whole, log_p = log_probabilities(pipe._params, 32)
    for bits in (16, 8):
        few, log_q = log_probabilities(pipe._params, bits)
        common.line(
            "logits",
            weight_bits=bits,
            tokens=ids.size,
            spread=float(whole.std()),
            change=float(jnp.sqrt(jnp.square(few - whole).mean())),
            divergence=float((jnp.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
            another_likeliest=float((few.argmax(-1) != whole.argmax(-1)).mean()),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--weight-bits", nargs="+", type=int, default=[32, 16, 8])
    parser.add_argument("--run", help="a run of a translator, whose logits are compared")
    arguments = parser.parse_args()
    if arguments.run:
        changes(arguments.run, ["a red seven", "two white fours", "a cyan nine and a red three"])
        return
    config = common.pair_config(arguments.tokens)
    params = common.random_params(models.build(config), config.data.text_len)
    for images in arguments.images:
        ours = common.drawing(config, params, images)
        sides = {bits: partial(ours, weight_bits=bits) for bits in arguments.weight_bits}
        sides["torch"] = common.generating(common.torch_pair(config).eval(), config, images)
        first, medians = common.in_turns(sides, arguments.repeat)
        alone = products(config, params, images)
        for bits in arguments.weight_bits:
            share = {"products": alone / medians[bits]} if bits == 32 else {}
            common.line(
                "sampling",
                weight_bits=bits,
                tokens=arguments.tokens,
                images=images,
                ours=medians[bits],
                peer=medians["torch"],
                ratio=medians["torch"] / medians[bits],
                first_seconds=first[bits],
                **share,
            )


if __name__ == "__main__":
    main()
