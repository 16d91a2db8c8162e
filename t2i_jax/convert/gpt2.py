"""GPT-2 as released (`GPT2Model`, `GPT2LMHeadModel` of transformers) -> models/gpt2.py."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from t2i_jax.convert import tables, weights
from t2i_jax.convert.tables import norm

conv1d = partial(tables.dense, turned=False)  # its kernel is as ours: from the input's axis to the output's
TOKENS = {"token_embed/embedding": ("V D", "wte.weight")}
TOP = {"position_embed/embedding": ("P D", "wpe.weight"), **norm("ln_f", "ln_f")}
BLOCK = {
    **norm("ln_attn", "ln_1"),
    **conv1d("attn/query", "attn.c_attn", part=" 0/3"),
    **conv1d("attn/key", "attn.c_attn", part=" 1/3"),
    **conv1d("attn/value", "attn.c_attn", part=" 2/3"),
    **conv1d("attn/out", "attn.c_proj"),
    **norm("ln_mlp", "ln_2"),
    **conv1d("mlp/up", "mlp.c_fc", out="M"),
    **conv1d("mlp/down", "mlp.c_proj", into="M"),
}
CROSS = {
    **norm("ln_cross_attn", "ln_cross_attn"),
    **conv1d("cross_attn/query", "crossattention.q_attn"),
    **conv1d("cross_attn/key", "crossattention.c_attn", part=" 0/2"),
    **conv1d("cross_attn/value", "crossattention.c_attn", part=" 1/2"),
    **conv1d("cross_attn/out", "crossattention.c_proj"),
}
INSIDE = "h"
BUFFERS = r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)"  # of causal masks
SIZES = {  # our fields -> those of config.json
    "vocab_size": "vocab_size",
    "width": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "positions": "n_positions",
}
FIXED = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
}


def table(
    layers: int, ours: str = "", theirs: str = "", *, tokens: bool = True, cross: bool = True
) -> tables.Table:
    """The table of a decoder of so many layers, with its token table and its cross attention or without."""
    top, block = TOP | (TOKENS if tokens else {}), BLOCK | (CROSS if cross else {})
    return tables.layered(top, block, INSIDE, layers, ours, theirs, "decoder")


def letters(sizes: Mapping) -> dict[str, int]:
    """Numbers of the table's letters."""
    return {"V": sizes["vocab_size"], "D": sizes["width"], "M": sizes["mlp_width"], "P": sizes["positions"]}


def read_sizes(config: Mapping, origin: str) -> dict:
    """Sizes from a released config.json; see `tables.read_sizes`."""
    sizes = tables.read_sizes(config, SIZES, FIXED, origin)
    inner = {"n_inner": 4 * sizes["width"]} if config.get("n_inner") is None else config
    return sizes | tables.read_sizes(inner, {"mlp_width": "n_inner"}, {}, origin)


def renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors without the prefix "transformer."."""
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def load(name_or_folder: str | Path, sizes: Mapping, field: str) -> dict:
    """Params of a `GPT2` from released weights.

    The token table is not among them: the file's is of words, and so is its tied head. Cross attention, which
    released weights lack, is left to its own initialisation but for its output, which is zero: at the first step
    the decoder computes what it was released to compute. Where the model has as many positions as the file, they
    are kept; else they are interpolated linearly, first to first and last to last.

    Args:
      name_or_folder: see `weights.find`; "gpt2" and its siblings have what is needed.
      sizes: the module's fields.
      field: of the config that sets them, for messages.

    Returns:
      A nested dict of float32 arrays; see above for what it leaves out.

    Raises:
      UserError: the file cannot be had or read, or is no GPT-2 of these sizes.
    """
    path = weights.find(name_or_folder)
    tensors, origin = renamed(weights.read(path)), str(path)
    try:
        found = {
            "width": tensors["wte.weight"].shape[1],
            "layers": tables.layers_in(tensors, INSIDE),
            "mlp_width": tensors[f"{INSIDE}.0.mlp.c_fc.weight"].shape[1],
        }
        positions = len(tensors["wpe.weight"])
    except (KeyError, IndexError, TypeError):
        raise tables.holds_no("GPT-2", tensors, origin) from None
    config = weights.read_config(name_or_folder)
    found["heads"] = read_sizes(config, f"config.json of {name_or_folder}")["heads"]
    tables.check_sizes(found, sizes, origin, "GPT-2", field)

    cross = any(".crossattention.c_proj." in name for name in tensors)
    rows = table(sizes["layers"], tokens=False, cross=cross)
    ignored = (BUFFERS, r"wte\.weight", r"lm_head\.weight")
    stored = letters({**sizes, "vocab_size": len(tensors["wte.weight"]), "positions": positions})
    params = tables.fill(tensors, rows, stored, ignored=ignored, origin=origin)
    embedding = params["position_embed"]["embedding"]
    params["position_embed"]["embedding"] = interpolated(embedding, sizes["positions"])
    if not cross:
        layers, width = sizes["layers"], sizes["width"]
        out = {
            "kernel": np.zeros((layers, width, width), np.float32),
            "bias": np.zeros((layers, width), np.float32),
        }
        params["decoder"]["layers"]["cross_attn"] = {"out": out}
    return params


def interpolated(rows: np.ndarray, count: int) -> np.ndarray:
    """So many rows, linearly between those given, first to first and last to last; as many as given stay as is."""
    places, given = np.linspace(0, len(rows) - 1, count), np.arange(len(rows))
    return np.stack([np.interp(places, given, column) for column in rows.T], 1).astype(np.float32)
