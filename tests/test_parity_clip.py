"""CLIP against torch `transformers`: features of both towers within 1e-5, ids and pixels as its processors give.

Weights are random and inflated, so that features depend on what is read; they go through files that torch writes.
"""

from functools import partial

import jax
import numpy as np
import pytest
from clips import MERGES, vocabulary, write
from ml_collections import FrozenConfigDict
from PIL import Image

from t2i_jax.convert import clip
from t2i_jax.data.clip_text import TextReader
from t2i_jax.models.clip import DEVIATION, Model, preprocess
from t2i_jax.pipelines import Clip

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
transformers = pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")

torch.set_num_threads(1)

V, S = 60, 11  # byte pairs, positions
jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def tower(width, heads, mlp_width, layers, act="quick_gelu", **more):
    return {
        "hidden_size": width, "num_attention_heads": heads, "intermediate_size": mlp_width,
        "num_hidden_layers": layers, "hidden_act": act, **more,
    }  # fmt: skip


def vision(side, patch, *sizes, **more):
    return tower(*sizes, image_size=side, patch_size=patch, **more)


def text(*sizes, end=V - 1, positions=S, **more):
    return tower(*sizes, vocab_size=V, max_position_embeddings=positions, eos_token_id=end, bos_token_id=0, **more)


SIZES = {  # vision, text, features
    "tiny": (vision(16, 8, 32, 4, 64, 2), text(32, 4, 64, 2), 16),
    "odd": (vision(40, 8, 48, 3, 100, 3), text(80, 5, 90, 2), 24),
    "gelu": (vision(21, 7, 36, 3, 50, 2, act="gelu"), text(24, 2, 70, 3, act="gelu"), 40),
    "old end": (vision(16, 8, 32, 4, 64, 1), text(32, 4, 64, 1, end=2), 16),
    "early end": (vision(16, 8, 32, 4, 64, 1), text(32, 4, 64, 1, end=7), 16),
    "base": ({}, {"eos_token_id": 2}, 512),
}


def reference(size):
    """CLIPModel with weights far from initialisation, so that a wrong norm, activation or bias shows."""
    vision_config, text_config, features = SIZES[size]
    config = transformers.CLIPConfig(vision_config=vision_config, text_config=text_config, projection_dim=features)
    model = transformers.CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(len(size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            is_scale = "norm" in name and name.endswith("weight")
            spread = 1.0 if "embedding" in name and "patch" not in name else 1.2 * fan_in**-0.5
            parameter.copy_(1 + 0.3 * noise if is_scale else spread * noise)
    return model


def texts(config):
    """Ids [4, S] of texts of different lengths, between a start and an end, and their mask.

    Behind the end is more than ends, where that is no larger id, so that looking there would show.
    """
    rng, largest = np.random.default_rng(0), config.vocab_size - 1
    length = config.max_position_embeddings
    end = largest if config.eos_token_id == 2 else config.eos_token_id
    ids = rng.integers(end + 1 if end < largest else 3, largest, (4, length))
    ids[:, 0] = 0
    ends = np.array([length - 1, 1, 4, 2])
    ids[np.arange(4), ends] = end
    ids[3, 3:] = end
    return ids, np.arange(length) <= ends[:, None]


def spread(features):
    """The least distance between two rows."""
    apart = np.linalg.norm(features[:, None] - features[None], axis=-1)
    return apart[~np.eye(len(features), dtype=bool)].min()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_features_match_torch(size, tmp_path):
    model = reference(size)
    model.save_pretrained(tmp_path)
    fields, params = clip.load(tmp_path)
    ours = Model(**FrozenConfigDict(fields))
    ids, mask = texts(model.config.text_config)
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(),
            pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2),
        )  # fmt: skip
    del model
    shapes = jax.eval_shape(ours.init, jax.random.key(0), pixels, ids)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    both = jit(lambda params, *inputs: ours.apply({"params": params}, *inputs, method=encode_both))
    for got, theirs in zip(both(params, pixels, ids), (expected.image_embeds, expected.text_embeds), strict=True):
        theirs = theirs.numpy()
        assert spread(theirs) > 0.01
        error = np.abs(got - theirs).max()
        print(f"{size}: within {error:.1e}, features {spread(theirs):.2f} apart or more")
        assert error <= 1e-5


def encode_both(model, pixels, ids):
    return model.encode_images(pixels), model.encode_texts(ids)


TEXTS = [
    "a red one", "A RED  one's\tdone ", "", "été, 12 reds!?", "re" * 30 + " red", "日本 ☂ <|endoftext|> one",
    "a_b-c re'd 3.14",
]  # fmt: skip


def test_ids_are_those_of_its_tokenizer(tmp_path):
    theirs = transformers.CLIPTokenizer(vocab=vocabulary(), merges=MERGES)
    theirs.save_pretrained(tmp_path)
    size = len(vocabulary())
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=S)["input_ids"]
    assert len(set(expected[4])) == 3  # start, a piece again and again, end: it was cut
    np.testing.assert_array_equal(TextReader(tmp_path / "tokenizer.json", size, S, None).encode(TEXTS)[0], expected)


def pictures(height, width):
    """Noise, hard edges that bicubic overshoots, and a gradient: uint8 [3, H, W, 3]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    edges = 255 * ((rows // 5 + columns // 7) % 2)
    shade = 255 * (rows + columns) // (height + width)
    flat = [np.broadcast_to(part[..., None], (height, width, 3)) for part in (edges, shade)]
    return np.stack([rng.integers(0, 256, (height, width, 3)), *flat]).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 224), (37, 53), (301, 233)])
def test_pixels_are_those_of_its_processor(height, width):
    """But for half levels, which Pillow rounds up and its fixed point moves: one level of 255 in few places."""
    images = pictures(height, width)
    processor = transformers.CLIPImageProcessor()
    listed = [Image.fromarray(image) for image in images]
    expected = processor(listed, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    ours = np.asarray(jax.jit(partial(preprocess, side=224))(images.astype(np.float32) / 255))
    assert ours.shape == expected.shape == (3, 224, 224, 3)
    levels = np.abs(ours - expected) * np.array(DEVIATION) * 255
    print(f"{height} x {width}: {np.mean(levels > 0.01):.1e} of the levels differ, by {levels.max():.3f} at most")
    assert levels.max() < 1.01
    assert np.mean(levels > 0.01) < 1e-3


def test_scores_are_those_of_the_whole_of_it(tmp_path):
    write(tmp_path)
    transformers.CLIPTokenizer(vocab=vocabulary(), merges=MERGES).save_pretrained(tmp_path)
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    # Cut and not scaled: a half level that scaling rounds the other way would move a score by more than is allowed.
    images = np.random.default_rng(0).integers(0, 256, (3, 22, 16, 3)).astype(np.uint8)
    prompts = ["a red one", "one", "a red one"]
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    ids = transformers.CLIPTokenizer.from_pretrained(tmp_path)(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**ids, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    expected = np.diag(logits.numpy())
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(Clip(tmp_path)(prompts, images), expected, atol=1e-5)
