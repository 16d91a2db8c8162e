"""What the benchmarks share: made-up inputs, random weights, the peer's model, and lines of JSON."""

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from t2i_jax.config import load_config


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


def random_params(model, text: int, dtype: str = "float32"):
    """Parameters as training starts with; kernels and tables in `dtype`."""
    text_ids, ids = np.zeros((1, text), np.int32), np.zeros((1, model.num_tokens), np.int32)

    def init(key):
        params = model.init(key, text_ids, text_ids == 0, ids)["params"]
        return jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, params)

    return jax.jit(init)(jax.random.key(0))


def pair_config(tokens: int):
    """BERT-base and GPT-2 of `translator:coco` in float32, two examples a step, nothing recomputed."""
    fields = "batch_size=2 accumulate=1 model.dtype=float32 model.encoder.remat=none model.decoder.remat=none"
    config = load_config("translator:coco", [f"--config.{field}" for field in fields.split()])
    config.model.num_tokens = tokens
    return config


def torch_pair(config):
    """A torch `EncoderDecoderModel` of the sizes of `config.model`, with random weights; the last id begins."""
    import transformers

    model = config.model
    encoder = transformers.BertConfig(
        vocab_size=model.text_vocab_size, hidden_size=model.encoder.width,
        num_hidden_layers=model.encoder.layers, num_attention_heads=model.encoder.heads,
        intermediate_size=model.encoder.mlp_width, max_position_embeddings=model.encoder.max_positions,
        hidden_dropout_prob=model.encoder.dropout, attention_probs_dropout_prob=model.encoder.attention_dropout,
    )  # fmt: skip
    size = model.codebook_size
    decoder = transformers.GPT2Config(
        vocab_size=size + 1, n_positions=max(model.decoder.positions, model.num_tokens + 1),
        n_embd=model.decoder.width, n_layer=model.decoder.layers, n_head=model.decoder.heads,
        n_inner=model.decoder.mlp_width, bos_token_id=size, eos_token_id=None,
        resid_pdrop=model.decoder.dropout, embd_pdrop=model.decoder.dropout,
        attn_pdrop=model.decoder.attention_dropout,
    )  # fmt: skip
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    both.decoder_start_token_id = both.pad_token_id = size
    return transformers.EncoderDecoderModel(both)
