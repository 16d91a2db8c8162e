"""CLIP: released files read whole or refused in one line, pixels made ready, pictures scored one by one."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clips import CONFIG, SIDE, S, V, tensors, with_config, write
from flax import serialization
from ml_collections import FrozenConfigDict
from released import BERT_JSON, bert_tensors
from tokenizers import Tokenizer

from t2i_jax.convert import clip, hub, weights
from t2i_jax.errors import UserError
from t2i_jax.models.clip import DEVIATION, MEAN, Model, preprocess
from t2i_jax.pipelines import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(folder):
    return Clip(folder)


def refusal(folder):
    with pytest.raises(UserError) as caught:
        Clip(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_file_is_read_whole(folder):
    fields, params = clip.load(folder)
    model = Model(**FrozenConfigDict(fields))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros((1, S), int))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes["params"])
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    used = sum(own.size for name, own in tensors().items() if "position_ids" not in name and name != "logit_scale")
    assert len(np.unique(flat)) == pytest.approx(used, abs=20)  # chance makes few numbers twice
    assert clip.load(folder / "model.safetensors")[0] == fields


def test_what_a_config_leaves_out_is_as_in_the_first_release():
    fields = clip.fields_of({"model_type": "clip", "vision_config": {}, "text_config": {"eos_token_id": 2}}, "")
    model = Model(**FrozenConfigDict(fields))
    default = Model(text=FrozenConfigDict({"end_id": None}))
    inputs = jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 77), int)
    shapes = [jax.eval_shape(one.init, jax.random.key(0), *inputs) for one in (model, default)]
    assert jax.tree.map(np.shape, shapes[0]) == jax.tree.map(np.shape, shapes[1])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes[0])) == 151_277_312  # the paper's 151 million
    heads = {"vision": 12, "text": 8}
    assert {name: fields[name]["heads"] for name in heads} == heads
    assert [fields[name]["activation"] for name in heads] == ["quick_gelu"] * 2
    assert fields["text"]["end_id"] is None


def test_kernels_of_convolutions_are_turned(tmp_path):
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # height, width, in, out
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.to_bytes({"conv": {"kernel": kernel}, "dense": {"kernel": kernel[0, 0]}}))
    read = weights.read(path)
    np.testing.assert_array_equal(read["conv.weight"], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(read["dense.weight"], kernel[0, 0].T)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BERT_JSON, "describes a bert, no clip; name the weights of one"),
        ({"model_type": "clip"}, "has no vision_config, which describes a tower"),
        (with_config("text_config", hidden_act="relu"), "has hidden_act relu; this model computes with quick_gelu"),
        (with_config("vision_config", num_attention_heads=5), "has width 12, which its 5 heads do not divide"),
        (with_config("vision_config", image_size=[16, 16]), "has image_size [16, 16], which is no whole number"),
        (with_config("vision_config", patch_size=7), "(image_size) into patches of 7 (patch_size), which do not"),
        (
            with_config("vision_config", patch_size=4),
            "holds a CLIP of patch (8, 8), not (4, 4); name other weights",
        ),
        (
            with_config("text_config", hidden_size=24),
            "final_layer_norm.bias has shape (12,), not (24,) and",
        ),
        (
            with_config("text_config", num_hidden_layers=1),
            "text_model.encoder.layers.1.layer_norm1.bias has no place",
        ),
        ({**CONFIG, "projection_dim": 12}, "visual_projection.weight has shape (10, 12), not (12, 12)"),
        ({**CONFIG, "projection_dim": "12"}, "has projection_dim '12', which is no whole number"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, said):
    assert said in refusal(write(tmp_path / "clip", config=config))


def test_weights_that_do_not_fit(tmp_path):
    own = tensors()
    del own["vision_model.post_layernorm.bias"]
    own["vision_model.head.weight"] = np.zeros(2, np.float32)
    said = refusal(write(tmp_path / "clip", own))
    assert "vision_model.post_layernorm.bias is missing; vision_model.head.weight has no place" in said
    assert "holds no CLIP (its tensors: embeddings.LayerNorm.bias" in refusal(write(tmp_path / "b", bert_tensors()))


def test_files_that_are_damaged_or_missing(tmp_path):
    folder = write(tmp_path / "clip")
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    for cut in (raw[:-100], raw[:50], b""):
        path.write_bytes(cut)
        assert f"{path} is damaged, cut short or no safetensors file" in refusal(folder)
    path.write_bytes(raw)
    (folder / "tokenizer.json").rename(folder / "other.json")
    assert "holds no tokenizer.json; put the file there" in refusal(folder)
    (folder / "config.json").unlink()
    assert "holds no config.json; put the file there" in refusal(folder)
    path.unlink()
    assert "holds no model.safetensors or" in refusal(folder)


def test_vocabularies_that_do_not_fit(tmp_path):
    folder = write(tmp_path / "clip", config=with_config("text_config", eos_token_id=7))
    said = f"has ids up to {V - 1} and ends a text with {V - 1}; the model reads ids up to {V - 1}, ended by 7"
    assert said in refusal(folder)
    path = write(folder) / "tokenizer.json"
    whole = Tokenizer.from_file(str(path))
    whole.add_tokens(["<extra>"])
    whole.save(str(path))
    assert f"has ids up to {V} and ends a text with {V - 1}" in refusal(folder)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"post_processor": None}))
    assert "puts no <|startoftext|> and <|endoftext|> around a text" in refusal(folder)
    path.write_text("{")
    assert "cannot be read" in refusal(folder)


def test_a_name_without_a_network(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub, "TIMEOUT", 1)
    said = refusal("openai/clip-vit-base-patch32")
    assert "its model.safetensors could not be fetched (ConnectionError: no network)" in said
    assert "put it into a folder, and name that folder instead" in said


@pytest.mark.parametrize(("height", "width"), [(5, 9), (40, 33), (16, 16)])
def test_pixels_are_made_ready(height, width):
    rows = np.broadcast_to(np.linspace(0, 255, height).round()[:, None], (height, width))
    images = np.stack([np.full((height, width), 255), rows])[..., None].astype(np.float32)
    ready = np.asarray(preprocess(images / 255, 16))
    assert ready.shape == (2, 16, 16, 3)
    levels = 255 * (ready * np.array(DEVIATION) + np.array(MEAN))
    np.testing.assert_allclose(levels[0], 255, atol=1e-3)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.all(np.diff(levels[1, :, 8, 0]) >= 0)
    assert np.ptp(levels[1, 8]) < 1e-3


def test_a_text_ends_where_it_says():
    """Features change with what stands before the end, and with nothing behind it."""
    tower = {"width": 8, "heads": 2, "mlp_width": 8, "layers": 1}
    vision = FrozenConfigDict({**tower, "image_size": 8, "patch_size": 8})
    ids = np.array([[0, 4, 9, 9, 9, 9], [0, 4, 9, 3, 12, 9], [0, 5, 9, 3, 12, 9]])
    for end, last in ((9, 6), (None, 4)):  # the largest id, where 12 is left out
        model = Model(8, vision, FrozenConfigDict({**tower, "vocab_size": 20, "positions": 6, "end_id": end}))
        params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), ids)
        read = np.asarray(jax.jit(partial(model.apply, method="encode_texts"))(params, ids[:, :last]))
        np.testing.assert_allclose(np.linalg.norm(read, axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(read[0], read[1], atol=1e-6)
        assert np.abs(read[0] - read[2]).max() > 1e-3
    with pytest.raises(ValueError, match="text has 7 tokens; the tower reads 6"):
        model.apply(params, np.zeros((1, 7), int), method="encode_texts")


def test_a_score_depends_on_its_picture_and_text_alone(scorer):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 27, 3)).astype(np.uint8)
    prompts = ["a red one", "one", "a red one", "red " * 30, ""]
    scores = scorer(prompts, images)
    assert scores.shape == (5,)
    assert np.all(np.abs(scores) <= 1)
    assert np.ptp(scores) > 0.01
    for i, prompt in enumerate(prompts):
        np.testing.assert_allclose(scorer([prompt], images[i : i + 1]), scores[i], atol=1e-6)
    np.testing.assert_allclose(scorer(prompts, images / np.float32(255)), scores, atol=1e-6)
    assert abs(scorer(["one"], images[:1])[0] - scores[0]) > 1e-3
    grey = images[..., :1]
    np.testing.assert_allclose(scorer(prompts, grey), scorer(prompts, np.repeat(grey, 3, -1)), atol=1e-6)
    assert scorer([], images[:0]).shape == (0,)


def test_pictures_that_cannot_be_scored(scorer):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for prompts, shown in ((["a"], images), (["a", "b"], images[0]), (["a", "b"], images[..., :2])):
        with pytest.raises(UserError, match=r"^pictures have shape .*; CLIP reads \["):
            scorer(prompts, shown)
    with pytest.raises(UserError, match="pixels reach from 0 to 2"):
        scorer(["a", "b"], images + np.array([0.0, 0.0, 2.0]))
