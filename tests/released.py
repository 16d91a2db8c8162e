"""Files of BERT and GPT-2 as they lie on the hub, small, their names and shapes written down from its listings."""

import json

import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

V, D, LAYERS, M, P = 43, 8, 3, 20, 10
BERT = {"vocab_size": V, "width": D, "layers": LAYERS, "heads": 2, "mlp_width": M, "max_positions": P}
GPT2_ = {"vocab_size": 6, "width": D, "layers": LAYERS, "heads": 2, "mlp_width": M, "positions": P}
BERT_JSON = {
    "model_type": "bert", "vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": M, "max_position_embeddings": P, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
GPT2_JSON = {
    "model_type": "gpt2", "vocab_size": V, "n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_positions": P,
    "n_inner": M, "n_ctx": P, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}  # fmt: skip


def numbered(shapes):
    """Arrays of these shapes; no number is in them twice."""
    arrays, first = {}, 1
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = np.arange(first, first + size, dtype=np.float32).reshape(shape)
        first += size
    return arrays


def dense(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name):
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def bert_tensors():
    """Written down from the hub's listing of bert-base-uncased, not from the table."""
    shapes = {f"embeddings.{kind}_embeddings.weight": (n, D) for kind, n in (("word", V), ("position", P))}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, D)} | norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{layer}.attention.{part}", D, D)
        shapes |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
        shapes |= dense(f"{layer}.intermediate.dense", M, D) | dense(f"{layer}.output.dense", D, M)
    return numbered(shapes)


def bert_heads(prefix):
    shapes = dense(f"{prefix}pooler.dense", D, D) | dense("cls.seq_relationship", 2, D) | dense("cls.x.dense", D, D)
    return numbered(shapes) | {f"{prefix}embeddings.position_ids": np.arange(P)[None]}


def gpt2_tensors():
    """Written down from the hub's listing of gpt2; torch's Conv1D is (in, out)."""
    shapes = {"wte.weight": (V, D), "wpe.weight": (P, D)} | norm("ln_f")
    for i in range(LAYERS):
        shapes |= norm(f"h.{i}.ln_1") | norm(f"h.{i}.ln_2")
        for name, into, out in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, M),
            ("mlp.c_proj", M, D),
        ):
            shapes |= {f"h.{i}.{name}.weight": (into, out), f"h.{i}.{name}.bias": (out,)}
    return numbered(shapes)


def buffers(prefix):
    masks = {f"{prefix}h.{i}.attn.bias": np.tril(np.ones((1, 1, P, P), np.uint8)) for i in range(LAYERS)}
    return masks | {f"{prefix}h.{i}.attn.masked_bias": np.array(-1e4, np.float32) for i in range(LAYERS)}


def flax_tree(tensors):
    """As a Flax model keeps them: its kernels are the transpose of torch's weights."""
    tree = {}
    for name, array in tensors.items():
        *outer, last = name.split(".")
        if last == "weight":
            is_table = "embeddings" in outer[-1] or outer[-1] in ("wte", "wpe")
            last = "embedding" if is_table else "scale" if array.ndim == 1 else "kernel"
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = array.T if last == "kernel" else array
    return tree


def tensor_of(torch, array):
    if array.dtype.name == "bfloat16":  # which torch takes from no array
        return torch.tensor(array.astype(np.float32)).bfloat16()
    return torch.tensor(array)


def write(folder, tensors, kind="safetensors", config=None):
    folder.mkdir(exist_ok=True)
    if kind == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    elif kind == "msgpack":
        (folder / "flax_model.msgpack").write_bytes(serialization.to_bytes(flax_tree(tensors)))
    else:
        torch = pytest.importorskip("torch", reason="torch writes its own format")
        state = {name: tensor_of(torch, array) for name, array in tensors.items()}
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "zip")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def old_names(tensors):
    return {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
        for name, array in tensors.items()
    }


KINDS = ["safetensors", "zip", "stream", "msgpack"]
