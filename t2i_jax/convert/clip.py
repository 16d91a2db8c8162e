"""CLIP as released (`CLIPModel` of transformers) -> models/clip.py, and its tokenizer."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from t2i_jax.convert import tables, weights
from t2i_jax.errors import UserError

SIZES = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
SIZES["mlp_width"] = "intermediate_size"
TEXT = SIZES | {"vocab_size": "vocab_size", "positions": "max_position_embeddings"}
VISION = SIZES | {"image_size": "image_size", "patch": "patch_size"}
FIXED = {"layer_norm_eps": (1e-5,)}
ACTIVATIONS = ("quick_gelu", "gelu")
OLD_END = 2  # in old configs, of whatever vocabulary: its true end is the last id

LAYER = {
    "attn/qkv/kernel": ("D 3D", *(f"self_attn.{part}_proj.weight T" for part in "qkv")),
    "attn/qkv/bias": ("3D", *(f"self_attn.{part}_proj.bias" for part in "qkv")),
    "attn/out/kernel": ("D D", "self_attn.out_proj.weight T"),
    "attn/out/bias": ("D", "self_attn.out_proj.bias"),
    "mlp/up/kernel": ("D M", "mlp.fc1.weight T"),
    "mlp/up/bias": ("M", "mlp.fc1.bias"),
    "mlp/down/kernel": ("M D", "mlp.fc2.weight T"),
    "mlp/down/bias": ("D", "mlp.fc2.bias"),
    **{
        f"ln_{number}/{ours}": ("D", f"layer_norm{number}.{theirs}")
        for number in (1, 2)
        for ours, theirs in (("scale", "weight"), ("bias", "bias"))
    },
}
PATCHES = "vision_model.embeddings.patch_embedding.weight"
TOP = {
    "text": {
        "token_embed/embedding": ("V D", "text_model.embeddings.token_embedding.weight"),
        "position_embed": ("P D", "text_model.embeddings.position_embedding.weight"),
        "ln_f/scale": ("D", "text_model.final_layer_norm.weight"),
        "ln_f/bias": ("D", "text_model.final_layer_norm.bias"),
        "projection/kernel": ("D F", "text_projection.weight T"),
    },
    "vision": {
        "patch_embed/kernel": ("C D", f"{PATCHES} T"),
        "class_embed": ("D", "vision_model.embeddings.class_embedding"),
        "position_embed": ("P D", "vision_model.embeddings.position_embedding.weight"),
        "ln_pre/scale": ("D", "vision_model.pre_layrnorm.weight"),  # so spelt there
        "ln_pre/bias": ("D", "vision_model.pre_layrnorm.bias"),
        "ln_f/scale": ("D", "vision_model.post_layernorm.weight"),
        "ln_f/bias": ("D", "vision_model.post_layernorm.bias"),
        "projection/kernel": ("D F", "visual_projection.weight T"),
    },
}
IGNORED = (r"logit_scale", r".*\.position_ids")


def load(name_or_folder: str | Path) -> tuple[dict, dict, Tokenizer]:
    """A released CLIP.

    Args:
      name_or_folder: a folder with the weights, `config.json` and `tokenizer.json`, or its name on the hub,
        "openai/clip-vit-base-patch32".

    Returns:
      Fields of `models.clip.Model`, its params, and the tokenizer, which pads and cuts texts to the tower's length.

    Raises:
      UserError: a file cannot be had or read, or is no CLIP.
    """
    path = weights.find(name_or_folder)
    config, origin = weights.read_config(name_or_folder, path), f"config.json of {name_or_folder}"
    fields = {"features": config.get("projection_dim")}
    if config.get("model_type") != "clip" or type(fields["features"]) is not int:
        raise UserError(
            f"{origin} is of no CLIP (model_type {config.get('model_type')!r}); name the weights of one"
        )
    for half, names in (("text", TEXT), ("vision", VISION)):
        own = config.get(f"{half}_config")
        if not isinstance(own, dict):
            raise UserError(f"{origin} has no field '{half}_config'; fetch it again, or name other weights")
        fields[half] = tables.read_sizes(own, names, FIXED, origin)
        fields[half]["activation"] = own.get("hidden_act", ACTIVATIONS[0])
        if fields[half]["activation"] not in ACTIVATIONS:
            raise UserError(f"{origin} has hidden_act {own['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}")
    end = config["text_config"].get("eos_token_id", OLD_END)
    fields["text"]["end_id"] = fields["text"]["vocab_size"] - 1 if end == OLD_END else end
    tensors = weights.read(path)
    if PATCHES in tensors and tensors[PATCHES].ndim == 4:  # out, in, height, width -> patches as we cut them
        tensors[PATCHES] = tensors[PATCHES].transpose(0, 2, 3, 1).reshape(len(tensors[PATCHES]), -1)
    table, params = {}, {}
    for half in ("text", "vision"):
        layers = fields[half]["layers"]
        table[half] = tables.layered(TOP[half], LAYER, f"{half}_model.encoder.layers", layers)
    for half, ours in table.items():
        other = {source.removesuffix(" T") for name in table if name != half for row in table[name].values()
                 for source in row.sources}  # fmt: skip
        own = {name: tensor for name, tensor in tensors.items() if name not in other}
        letters = _letters(fields[half], fields["features"])
        params[f"{half}_tower"] = tables.fill(own, ours, letters, ignored=IGNORED, origin=str(path))
    return fields, params, _tokenizer(name_or_folder, path, fields["text"])


def _letters(sizes: dict, features: int) -> dict[str, int]:
    letters = {"D": sizes["width"], "M": sizes["mlp_width"], "F": features}
    if "vocab_size" in sizes:
        return letters | {"V": sizes["vocab_size"], "P": sizes["positions"]}
    patches = (sizes["image_size"] // sizes["patch"]) ** 2
    return letters | {"C": 3 * sizes["patch"] ** 2, "P": patches + 1}


def _tokenizer(name_or_folder, path, sizes) -> Tokenizer:
    file = weights.find_beside(name_or_folder, path, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_str(file.read_text("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file} is damaged or no tokenizer ({str(error)[:120]}); fetch it again") from None
    if tokenizer.get_vocab_size() != sizes["vocab_size"]:
        raise UserError(
            f"{file} has {tokenizer.get_vocab_size()} pieces, the weights {sizes['vocab_size']}; fetch both again"
        )
    tokenizer.enable_truncation(sizes["positions"])
    tokenizer.enable_padding(pad_id=sizes["end_id"], length=sizes["positions"])
    return tokenizer


def encode(tokenizer: Tokenizer, captions) -> np.ndarray:
    """Ids [B, S] of captions, each from its start to its end, and ends after that."""
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(list(captions))], np.int32)
