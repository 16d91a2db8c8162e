"""BERT as released (`BertModel`, `BertForPreTraining` and others of transformers) -> models/bert.py."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from t2i_jax.convert import tables, weights
from t2i_jax.convert.tables import dense, norm
from t2i_jax.errors import UserError

TOP = {
    "word_embed/embedding": ("V D", "embeddings.word_embeddings.weight"),
    "position_embed/embedding": ("P D", "embeddings.position_embeddings.weight"),
    "type_embed/embedding": ("T D", "embeddings.token_type_embeddings.weight"),
    **norm("ln_embed", "embeddings.LayerNorm"),
}
LAYER = {
    **dense("attn/query", "attention.self.query"),
    **dense("attn/key", "attention.self.key"),
    **dense("attn/value", "attention.self.value"),
    **dense("attn/out", "attention.output.dense"),
    **norm("ln_attn", "attention.output.LayerNorm"),
    **dense("mlp/up", "intermediate.dense", out="M"),
    **dense("mlp/down", "output.dense", into="M"),
    **norm("ln_mlp", "output.LayerNorm"),
}
INSIDE = "encoder.layer"
IGNORED = (r"(pooler|cls|classifier|qa_outputs)\..*", r"embeddings\.(position|token_type)_ids")
SIZES = {  # our fields -> those of config.json
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
FIXED = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "layer_norm_eps": (1e-12,),
    "type_vocab_size": (2,),
    "position_embedding_type": ("absolute",),
}


def table(layers: int, ours: str = "", theirs: str = "") -> tables.Table:
    """The table of an encoder of so many layers."""
    return tables.layered(TOP, LAYER, INSIDE, layers, ours, theirs, "encoder")


def letters(sizes: Mapping) -> dict[str, int]:
    """Numbers of the table's letters."""
    return {
        "V": sizes["vocab_size"],
        "D": sizes["width"],
        "M": sizes["mlp_width"],
        "P": sizes["max_positions"],
        "T": 2,
    }


def read_sizes(config: Mapping, origin: str) -> dict:
    """Sizes from a released config.json; see `tables.read_sizes`."""
    return tables.read_sizes(config, SIZES, FIXED, origin)


def renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors without the prefix "bert.", and with the names that layer norms have today."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[name] = tensor
    return renamed


def load(name_or_folder: str | Path, sizes: Mapping, field: str) -> dict:
    """Params of a `Bert` from released weights.

    Args:
      name_or_folder: see `weights.find`; "bert-base-uncased" and its siblings have what is needed.
      sizes: the module's fields. Of the file's positions the first `max_positions` are kept.
      field: of the config that sets them, for messages.

    Returns:
      A nested dict of float32 arrays, all that the module has.

    Raises:
      UserError: the file cannot be had or read, or is no BERT of these sizes.
    """
    path = weights.find(name_or_folder)
    tensors, origin = renamed(weights.read(path)), str(path)
    try:
        found = {
            "vocab_size": len(tensors["embeddings.word_embeddings.weight"]),
            "width": tensors["embeddings.word_embeddings.weight"].shape[1],
            "layers": tables.layers_in(tensors, INSIDE),
            "mlp_width": len(tensors[f"{INSIDE}.0.intermediate.dense.weight"]),
        }
        positions = len(tensors["embeddings.position_embeddings.weight"])
    except (KeyError, IndexError, TypeError):
        raise tables.holds_no("BERT", tensors, origin) from None
    config = weights.read_config(name_or_folder)
    found["heads"] = read_sizes(config, f"config.json of {name_or_folder}")["heads"]
    tables.check_sizes(found, sizes, origin, "BERT", field)
    if positions < sizes["max_positions"]:
        raise UserError(
            f"{origin} holds {positions} positions; {field}.max_positions {sizes['max_positions']} asks for more:"
            " lower it, and the text's length with it"
        )
    stored = letters({**sizes, "max_positions": positions})
    params = tables.fill(tensors, table(sizes["layers"]), stored, ignored=IGNORED, origin=origin)
    embedding = params["position_embed"]["embedding"]
    params["position_embed"]["embedding"] = embedding[: sizes["max_positions"]]
    return params
