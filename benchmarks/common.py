"""What the benchmarks share: made-up inputs, random weights, the peer's model, and lines of JSON."""

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from t2i_jax import models
from t2i_jax.config import load_config
from t2i_jax.convert.encoder_decoder import theirs_of
from t2i_jax.sampling.decoding import decode


def machine() -> str:
    """The accelerator's name, or the CPU's."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return f"{names[0].partition(': ')[2]}, {len(names)} cores" if names else platform.processor()


def versions() -> str:
    names = ("jax", "flax", "torch", "transformers")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def line(name: str, **fields) -> None:
    """Print one case; numbers with four digits."""
    short = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in fields.items()}
    print(json.dumps({"name": name, **short, "machine": machine(), "versions": versions()}), flush=True)


def seconds(function: Callable, repeat: int = 5) -> float:
    """Median wall seconds of `function()`, which is waited for; it has run before."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def made_up(shapes: dict, ids: int = 64) -> dict:
    """Random pixels, tokens below `ids` (64 are in every vocabulary), captions that are whole, no null rows."""
    rng = np.random.default_rng(0)
    kinds = {
        "f": lambda shape: rng.random(shape, np.float32),
        "i": lambda shape: rng.integers(0, ids, shape, np.int32),
        "b": lambda shape: np.full(shape, len(shape) == 2),  # text_mask; null marks no row
    }
    return {name: kinds[shape.dtype.kind](shape.shape) for name, shape in shapes.items()}


def random_params(model, text: int):
    """Parameters as training starts with."""
    text_ids, ids = np.zeros((1, text), np.int32), np.zeros((1, model.num_tokens), np.int32)
    return jax.jit(model.init)(jax.random.key(0), text_ids, text_ids == 0, ids)["params"]


def pair_config(tokens: int, batch: int = 2, matmul: str = "float32"):
    """BERT-base and GPT-2 of `translator:coco` in float32, `batch` examples a step, nothing recomputed.

    Args:
      matmul: what factors of products are rounded to, "float32" or "bfloat16".
    """
    fields = (
        f"batch_size={batch} accumulate=1 matmul={matmul} model.dtype=float32"
        " model.encoder.remat=none model.decoder.remat=none"
    )
    config = load_config("translator:coco", [f"--config.{field}" for field in fields.split()])
    config.model.num_tokens = tokens
    return config


def drawing(config, params, images: int, scale: float = 1.0, window: int = 1) -> Callable:
    """Draws all tokens of so many images, each of its own caption, at temperature 1 without filters."""
    text_ids = np.random.default_rng(0).integers(0, 64, (images, config.data.text_len), np.int32)
    condition = text_ids, np.ones(text_ids.shape, bool), np.zeros(images, bool)
    keys = jax.random.split(jax.random.key(1), images)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "unguided_tokens": 0}
    settings["guidance_scale"] = scale
    kind = {"guided": scale != 1, "window": window}
    return partial(decode, models.build(config), params, condition, keys, settings, **kind)


OF_MEMORY = (("cross_attn", "key"), ("cross_attn", "value"))  # kernels that a decoding step does not read


def weights_read(params) -> int:
    """How many weights a decoding step of a translator reads: the decoder's and the head's, less `OF_MEMORY`."""
    flat = flatten_dict({"decoder": params["gpt2"]["decoder"], "head": params["head"]})
    return sum(x.size for path, x in flat.items() if path[-3:-1] not in OF_MEMORY)


def generating(model, config, images: int, **options) -> Callable:
    """As `drawing`, by the `generate` of transformers; `model` of `torch_pair`."""
    import torch

    text_ids = torch.randint(0, 64, (images, config.data.text_len), device=model.device)
    options |= dict.fromkeys(("max_new_tokens", "min_new_tokens"), config.model.num_tokens)

    @torch.inference_mode()
    def draw():
        mask = torch.ones_like(text_ids)
        model.generate(text_ids, attention_mask=mask, do_sample=True, top_k=0, eos_token_id=None, **options)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    return draw


def in_turns(sides: dict[str, Callable], repeat: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each side's first run, and medians of `repeat` more by each side in turn."""
    times = {side: [] for side in sides}
    for _ in range(repeat + 1):
        for side, function in sides.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[side].append(time.perf_counter() - start)
    first = {side: took[0] for side, took in times.items()}
    return first, {side: statistics.median(took[1:]) for side, took in times.items()}


def torch_pair(config):
    """A torch `EncoderDecoderModel` of the sizes of `config.model`, with random weights."""
    import transformers

    return transformers.EncoderDecoderModel(transformers.EncoderDecoderConfig(**theirs_of(config.model)))
