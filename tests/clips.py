"""A small CLIP as it lies on the hub: `config.json`, `model.safetensors`, `tokenizer.json`. Made without torch."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from t2i_jax.data.clip_text import END, START

SIDE, PATCH, WIDTH, FEATURES, S, MLP, LAYERS = 16, 8, 12, 10, 9, 20, 2
MERGES = [("r", "e"), ("re", "d</w>"), ("o", "n"), ("on", "e</w>"), ("e", "d</w>")]


def vocabulary():
    """Every byte, alone and at a word's end, some pairs, then start and end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [a + b for a, b in MERGES]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *pairs, START, END]
    return {piece: i for i, piece in enumerate(pieces)}


V = len(vocabulary())
TOWER = {"num_hidden_layers": LAYERS, "intermediate_size": MLP, "num_attention_heads": 3, "hidden_size": WIDTH}
CONFIG = {
    "model_type": "clip",
    "projection_dim": FEATURES,
    "vision_config": {**TOWER, "image_size": SIDE, "patch_size": PATCH},
    "text_config": {**TOWER, "vocab_size": V, "max_position_embeddings": S, "eos_token_id": 2},
}


def with_config(part, **changes):
    """The config with other fields in one of its parts."""
    return {**CONFIG, part: {**CONFIG[part], **changes}}


def tensors():
    """Written down from the hub's listing of openai/clip-vit-base-patch32, not from the table."""
    shapes = {
        "text_model.embeddings.token_embedding.weight": (V, WIDTH),
        "text_model.embeddings.position_embedding.weight": (S, WIDTH),
        "vision_model.embeddings.class_embedding": (WIDTH,),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "text_projection.weight": (FEATURES, WIDTH),
        "visual_projection.weight": (FEATURES, WIDTH),
        "logit_scale": (),
    }
    norms = ["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    for tower in ("text", "vision"):
        for i in range(LAYERS):
            layer = f"{tower}_model.encoder.layers.{i}"
            norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                shapes |= {f"{layer}.self_attn.{part}.weight": (WIDTH, WIDTH)}
                shapes |= {f"{layer}.self_attn.{part}.bias": (WIDTH,)}
            shapes |= {f"{layer}.mlp.fc1.weight": (MLP, WIDTH), f"{layer}.mlp.fc1.bias": (MLP,)}
            shapes |= {f"{layer}.mlp.fc2.weight": (WIDTH, MLP), f"{layer}.mlp.fc2.bias": (WIDTH,)}
    shapes |= {f"{norm}.{kind}": (WIDTH,) for norm in norms for kind in ("weight", "bias")}
    rng = np.random.default_rng(0)
    made = {name: np.asarray(0.4 * rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}
    made |= {f"{norm}.weight": 1 + made[f"{norm}.weight"] for norm in norms}
    made |= {
        f"{tower}_model.embeddings.position_ids": np.arange(count)[None]
        for tower, count in (("text", S), ("vision", 5))
    }
    return made


def write(folder, own=None, config=CONFIG):
    """A folder with all three files."""
    folder.mkdir(exist_ok=True)
    save_file(tensors() if own is None else own, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    vocab = vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab, MERGES, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.RobertaProcessing((END, vocab[END]), (START, vocab[START]))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
