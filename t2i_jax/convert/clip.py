"""CLIP as released (`CLIPModel` of transformers) -> models/clip.py."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from t2i_jax.convert import tables, weights
from t2i_jax.convert.tables import dense, norm
from t2i_jax.errors import UserError
from t2i_jax.models.clip import Text, Tower, Vision

LAYER = {
    **norm("ln_attn", "layer_norm1"),
    **dense("attn/query", "self_attn.q_proj"),
    **dense("attn/key", "self_attn.k_proj"),
    **dense("attn/value", "self_attn.v_proj"),
    **dense("attn/out", "self_attn.out_proj"),
    **norm("ln_mlp", "layer_norm2"),
    **dense("mlp/up", "mlp.fc1", out="M"),
    **dense("mlp/down", "mlp.fc2", into="M"),
}
INSIDE = "encoder.layers"
PATCHES, TOKENS = "vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight"
# C is the size of a patch: its pixels of one colour after the other, row by row.
VISION = {
    "class_embed": ("D", "embeddings.class_embedding"),
    "patch_embed/kernel": ("C D", "embeddings.patch_embedding.weight T"),
    "position_embed": ("P D", "embeddings.position_embedding.weight"),
    **norm("ln_embed", "pre_layrnorm"),
    **norm("ln_out", "post_layernorm"),
}
TEXT = {
    "token_embed/embedding": ("V D", "embeddings.token_embedding.weight"),
    "position_embed/embedding": ("P D", "embeddings.position_embedding.weight"),
    **norm("ln_out", "final_layer_norm"),
}
IGNORED = ("logit_scale", r"(vision|text)_model\.embeddings\.position_ids")  # a temperature; 0, 1, 2, ...

# Our fields -> those of config.json, which leaves out what is as in ViT-B/32.
SIZES = {
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "layers": "num_hidden_layers",
}
VISION_SIZES = SIZES | {"image_size": "image_size", "patch_size": "patch_size"}
TEXT_SIZES = SIZES | {"vocab_size": "vocab_size", "positions": "max_position_embeddings", "end_id": "eos_token_id"}
VISION_DEFAULTS = {theirs: getattr(Vision, ours) for ours, theirs in VISION_SIZES.items()}
TEXT_DEFAULTS = {theirs: getattr(Text, ours) for ours, theirs in TEXT_SIZES.items()}
FIXED = {"hidden_act": ("quick_gelu", "gelu"), "layer_norm_eps": (1e-5,)}
OLD_END = 2  # what the first releases call their `eos_token_id`; they end with their largest id


def load(name_or_folder: str | Path) -> tuple[dict, dict]:
    """Read released weights.

    Args:
      name_or_folder: see `weights.find`; "openai/clip-vit-base-patch32" and its siblings have what is needed. Their
        sizes are those of the `config.json` beside them.

    Returns:
      Fields of `models.clip.Model`, and its params, a nested dict of float32 arrays.

    Raises:
      UserError: a file cannot be had or read, or holds another architecture or other sizes than its config says.
    """
    path = weights.find(name_or_folder)
    content = weights.read_config(name_or_folder)
    fields = fields_of(content, f"config.json of {name_or_folder}")
    return fields, convert(weights.read(path), fields, str(path))


def fields_of(content: Mapping, origin: str) -> dict:
    """Fields of `models.clip.Model` from a released `config.json`.

    Raises:
      UserError: it describes no CLIP, or one that the module does not compute.
    """
    if content.get("model_type") != "clip":
        raise UserError(
            f"{origin} describes a {content.get('model_type')}, no clip; name the weights of one, say"
            " openai/clip-vit-base-patch32"
        )
    vision = _tower(content, "vision_config", VISION_SIZES, VISION_DEFAULTS, origin)
    text = _tower(content, "text_config", TEXT_SIZES, TEXT_DEFAULTS, origin)
    if vision["image_size"] % vision["patch_size"]:
        raise UserError(
            f"{origin} cuts pictures of side {vision['image_size']} (image_size) into patches of"
            f" {vision['patch_size']} (patch_size), which do not fill them; fetch it again, or name others"
        )
    if text["end_id"] == OLD_END:
        text["end_id"] = None
    features = tables.read_sizes({"projection_dim": 512, **content}, {"features": "projection_dim"}, {}, origin)
    return {**features, "vision": vision, "text": text}


def _tower(content, part, names, defaults, origin):
    stated = content.get(part)
    if not isinstance(stated, Mapping):
        raise UserError(f"{origin} has no {part}, which describes a tower; fetch it again")
    stated, origin = {"hidden_act": Tower.activation, **defaults, **stated}, f"{part} in {origin}"
    sizes = tables.read_sizes(stated, names, FIXED, origin)
    if sizes["width"] % sizes["heads"]:
        raise UserError(
            f"{origin} has width {sizes['width']}, which its {sizes['heads']} heads do not divide; fetch it again"
        )
    return {**sizes, "activation": stated["hidden_act"]}


def convert(tensors: Mapping[str, np.ndarray], fields: Mapping, origin: str) -> dict:
    """Params of `models.clip.Model` from a file's tensors.

    Args:
      tensors: by name.
      fields: of the model, as `fields_of` gives them.
      origin: what errors call the tensors.

    Raises:
      UserError: tensors are missing, left over, or of another shape.
    """
    if not {PATCHES, TOKENS} <= tensors.keys():
        raise tables.holds_no("CLIP", tensors, origin)
    vision, text = fields["vision"], fields["text"]
    patches = tensors[PATCHES]
    found = {"channels": patches.shape[1:2], "patch": patches.shape[2:]}
    asked = {"channels": (3,), "patch": (vision["patch_size"],) * 2}
    tables.check_sizes(found, asked, origin, "CLIP", "its config.json")
    tensors = {**tensors, PATCHES: patches.reshape(len(patches), -1)}
    seen = {name: tensor for name, tensor in tensors.items() if name.startswith(("vision_model.", "visual_"))}
    read = {name: tensor for name, tensor in tensors.items() if name not in seen}
    grid = vision["image_size"] // vision["patch_size"]
    sizes = {"C": 3 * vision["patch_size"] ** 2, "P": grid**2 + 1} | _letters(fields, vision)
    params = tables.fill(seen, _table("vision", "visual", VISION, vision), sizes, ignored=IGNORED, origin=origin)
    sizes = {"V": text["vocab_size"], "P": text["positions"]} | _letters(fields, text)
    return params | tables.fill(read, _table("text", "text", TEXT, text), sizes, ignored=IGNORED, origin=origin)


def _letters(fields, tower):
    return {"F": fields["features"], "D": tower["width"], "M": tower["mlp_width"]}


def _table(name, projection, top, tower):
    rows = tables.layered(top, LAYER, INSIDE, tower["layers"], f"{name}_tower/", f"{name}_model.", "encoder")
    return rows | {f"{name}_tower/project/kernel": tables.Row("D F", f"{projection}_projection.weight T")}
