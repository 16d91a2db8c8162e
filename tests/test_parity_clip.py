"""CLIP's towers against torch `CLIPModel` on random weights, through a folder as released."""

import functools
import json

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch_pairs import torch, transformers

from t2i_jax import cli
from t2i_jax.convert import clip
from t2i_jax.errors import UserError
from t2i_jax.generate import clip as generate_clip
from t2i_jax.models.clip import DEVIATION, MEAN, Model

WORDS = ("red", "seven", "above", "a", "blue", "one", "green", "two")
S = 12
# (width, heads, layers, mlp_width) of text and vision, side and patch of pictures, features, activation
SIZES = {
    "tiny": ((32, 4, 2, 64), (32, 4, 2, 64), 32, 16, 24, "quick_gelu"),
    "odd": ((48, 3, 3, 100), (60, 5, 2, 90), 40, 8, 36, "gelu"),
    "base": ((512, 8, 12, 2048), (768, 12, 12, 3072), 224, 32, 512, "quick_gelu"),  # ViT-B/32
}


def tokenizer():
    """Whole words, and CLIP's two ids last."""
    pieces = ("[UNK]", *WORDS, "<|startoftext|>", "<|endoftext|>")
    built = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(piece, pieces.index(piece)) for piece in pieces[-2:]]
    built.post_processor = processors.TemplateProcessing("<|startoftext|> $A <|endoftext|>", special_tokens=ends)
    return built


@functools.cache
def reference(size, end=2):
    """CLIPModel whose features differ from text to text and from picture to picture."""
    text, vision, side, patch, features, activation = SIZES[size]
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
    common = {"hidden_act": activation, "projection_dim": features}
    count = tokenizer().get_vocab_size()
    ids = {"vocab_size": count, "max_position_embeddings": S, "eos_token_id": end, "bos_token_id": count - 2}
    config = transformers.CLIPConfig(
        text_config=dict(zip(names, text, strict=True)) | ids | common,
        vision_config=dict(zip(names, vision, strict=True)) | {"image_size": side, "patch_size": patch} | common,
        projection_dim=features,
    )
    module = transformers.CLIPModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("weight") and parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5 * (20 if "token_embed" in name else 1))
            else:
                parameter.copy_(0.1 * noise)
    return module.eval()


@pytest.fixture(params=SIZES)
def released(request, tmp_path):
    """A folder as on the hub, and what it was written from."""
    return write(tmp_path, reference(request.param)), reference(request.param)


def write(folder, module):
    module.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def pictures(side, count=3):
    return np.random.default_rng(0).random((count, side, side, 3)).astype(np.float32)


def test_features_match_torch(released):
    folder, module = released
    fields, params, reader = clip.load(folder)
    model = Model(**FrozenConfigDict(fields))
    ids = clip.encode(reader, ["a red seven", "blue one above green two", "two " * 20])
    images = pictures(fields["vision"]["image_size"])
    assert ids.shape == (3, S)
    assert (ids[2] != ids[0, 0]).sum() == S - 1  # cut, and ended all the same
    assert ids[2, -1] == ids.max()

    with torch.no_grad():
        pixels = torch.tensor(((images - MEAN) / DEVIATION).transpose(0, 3, 1, 2), dtype=torch.float32)
        answer = module(input_ids=torch.tensor(ids, dtype=torch.int64), pixel_values=pixels)
    run = jax.jit(model.apply, static_argnames="method")
    for theirs, inputs, method in (
        (answer.text_embeds, ids, "text_features"),
        (answer.image_embeds, images, "image_features"),
    ):
        ours = run({"params": params}, inputs, method=method)
        assert min(np.abs(ours[i] - ours[j]).max() for i in range(3) for j in range(i)) > 1e-2
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)
    if fields["vision"]["layers"] < 12:  # compiling the whole once more would prove nothing new
        cosine = np.diagonal(answer.logits_per_text.numpy()) / np.exp(module.logit_scale.item())
        np.testing.assert_allclose(run({"params": params}, ids, images), cosine, atol=1e-5)


def test_a_text_ends_where_newer_configs_say(tmp_path):
    module = reference("tiny", end=tokenizer().get_vocab_size() - 3)
    folder = write(tmp_path, module)
    fields, params, _ = clip.load(folder)
    assert fields["text"]["end_id"] == tokenizer().get_vocab_size() - 3
    ids = np.array([[9, 1, 8, 3, 10, 8]])
    with torch.no_grad():
        theirs = module.get_text_features(torch.tensor(ids))
    theirs = getattr(theirs, "pooler_output", theirs)
    ours = Model(**FrozenConfigDict(fields)).apply({"params": params}, ids, method="text_features")
    np.testing.assert_allclose(ours, theirs / theirs.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5)


def test_pictures_of_another_side_are_resized_as_theirs(tmp_path):
    """Their processor rounds resized pixels to whole grey levels, so features cannot agree to the last digits."""
    folder = write(tmp_path, reference("tiny"))
    images = np.uint8(255 * pictures(64).round(1).repeat(1, 1))
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size=32, image_mean=list(MEAN), image_std=list(DEVIATION)
    )
    pixels = processor(list(images), return_tensors="pt", input_data_format="channels_last").pixel_values
    with torch.no_grad():
        theirs = reference("tiny").get_image_features(pixels)
    theirs = getattr(theirs, "pooler_output", theirs)
    fields, params, _ = clip.load(folder)
    model = Model(**FrozenConfigDict(fields))
    ours = jax.jit(lambda images: model.apply({"params": params}, images, method="image_features"))(
        np.float32(images) / 255
    )
    np.testing.assert_allclose(ours, theirs / theirs.norm(dim=-1, keepdim=True), rtol=0, atol=0.02)


def test_scores_do_not_depend_on_the_batch(tmp_path):
    score = generate_clip.Clip(write(tmp_path, reference("tiny")))
    images, prompts = np.uint8(255 * pictures(48, 5)), ["a red seven", "blue one", "two", "green two", "one"]
    scores = score(prompts, images)
    assert scores.shape == (5,)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose([score([p], images[[i]])[0] for i, p in enumerate(prompts)], scores, atol=1e-5)


def test_the_command_line_ranks_by_clip(tmp_path, smoke_run, capsys):
    folder = write(tmp_path / "clip", reference("tiny"))
    out = tmp_path / "grid.png"
    command = [
        "sample",
        "--run",
        str(smoke_run.translator),
        "--prompt",
        "a red seven",
        "-n",
        "2",
        "--out",
        str(out),
    ]
    assert cli.main([*command, "--candidates", "4", "--rerank", "clip", "--clip", str(folder)]) in (0, None)
    assert out.exists()
    assert cli.main([*command, "--clip", str(folder)]) == 2
    assert "needs --rerank clip" in capsys.readouterr().err


def damaged(folder, case):
    config = json.loads((folder / "config.json").read_text())
    if case == "architecture":
        config["model_type"] = "siglip"
    elif case == "activation":
        config["text_config"]["hidden_act"] = "relu"
    elif case == "layers":
        config["vision_config"]["num_hidden_layers"] = 3
    elif case == "half":
        del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config))
    if case == "cut":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-100])
    if case == "pieces":
        Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("architecture", "model_type 'siglip'"),
        ("activation", "hidden_act 'relu'; known are quick_gelu, gelu"),
        ("layers", "vision_model.encoder.layers.2.* is missing"),
        ("half", "no field 'text_config'"),
        ("cut", "model.safetensors"),
        ("pieces", "has 1 pieces, the weights 11"),
    ],
)
def test_what_is_no_clip_is_one_line(tmp_path, case, said):
    folder = write(tmp_path, reference("tiny"))
    damaged(folder, case)
    with pytest.raises(UserError, match=said.replace("'", ".")) as error:
        clip.load(folder)
    assert "\n" not in str(error.value)
