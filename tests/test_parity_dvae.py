"""The dVAE against OpenAI's own code (the package DALL-E 0.1), through files that torch saved of random weights."""

import io

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from t2i_jax.cli.convert import openai_dvae_config
from t2i_jax.convert import openai_dvae
from t2i_jax.data.sources import captioned_photos
from t2i_jax.models.dvae import Model
from t2i_jax.pipelines import converted

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
dall_e = pytest.importorskip(
    "dall_e", reason="DALL-E comes with `pip install --no-deps DALL-E==0.1 attrs requests`"
)

SIZES = {
    "tiny": ({"n_hid": 64, "vocab_size": 512}, {"n_init": 24, "n_blk_per_group": 1}),
    "odd": ({"n_hid": 68, "vocab_size": 515}, {"n_init": 9, "n_blk_per_group": 3}),
    "released": ({}, {}),
}


def reference(size, seed=0):
    """OpenAI's encoder and decoder with random weights, larger than initialised in the residual branches."""
    shared, own = SIZES[size]
    own = dict(own)
    blocks = {"n_blk_per_group": own.pop("n_blk_per_group", 2)}
    torch.manual_seed(seed)
    encoder, decoder = dall_e.Encoder(**shared, **blocks), dall_e.Decoder(**shared, **blocks, **own)
    with torch.no_grad():
        for module in (encoder, decoder):
            for name, parameter in module.named_parameters():
                if name.endswith(".b"):
                    parameter.normal_(std=0.3)
                elif "res_path" in name:
                    parameter.mul_(2)
        decoder.blocks.input.w.mul_(decoder.vocab_size**0.5)
    return encoder, decoder


def ours(pair, folder, *, old):
    """Model and variables from the files that torch saves of them."""
    paths = [folder / "encoder.pkl", folder / "decoder.pkl"]
    for module, path in zip(pair, paths, strict=True):
        torch.save(module, path, _use_new_zipfile_serialization=not old)
    tensors = openai_dvae.read(*paths)
    config = openai_dvae_config(tensors, 256)
    shapes = converted.shapes_of(config, np.zeros((1, 256, 256, 3), np.float32))
    params = openai_dvae.convert(tensors, shapes)
    assert sum(x.size for x in params.values()) == sum(p.numel() for module in pair for p in module.parameters())
    return config["model"], {"params": unflatten_dict(params, sep="/")}


def optimized(function):
    """Jitted with LLVM's optimizations, which the other tests do without: here they are worth their time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 3})


def to_torch(images):
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).contiguous()


def from_torch(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


def logits_of(encoder, images):
    with torch.no_grad():
        return from_torch(encoder(dall_e.map_pixels(to_torch(images))))


def outputs_of(decoder, codes):
    with torch.no_grad():
        return from_torch(decoder(to_torch(codes)))


def assert_close(mine, theirs, tolerance=1e-4):
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("size", ["tiny", "odd"])
def test_logits_and_outputs_match(size, old, tmp_path):
    encoder, decoder = pair = reference(size)
    fields, variables = ours(pair, tmp_path, old=old)
    model = Model(**fields)
    images = np.random.default_rng(0).random((2, 40, 24, 3), np.float32)  # neither square nor a power of two
    logits = jax.jit(lambda x: model.apply(variables, x, method="encode"))(images)
    assert_close(logits, logits_of(encoder, images))
    assert np.std(logits) > 0.1
    soft = np.random.default_rng(1).dirichlet(np.full(model.codebook_size, 0.01), (2, 5, 3)).astype(np.float32)
    outputs = jax.jit(lambda x: model.apply(variables, x, method="decode"))(soft)
    assert_close(outputs, outputs_of(decoder, soft))
    assert np.std(outputs) > 0.1


def photographs(side=256):
    """Four, cut square and scaled."""
    from PIL import Image

    found = []
    for package, name in list(captioned_photos.PHOTOGRAPHS.values())[:12:3]:
        with (captioned_photos.resources.files(package) / name).open("rb") as file:
            picture = Image.open(io.BytesIO(file.read())).convert("RGB")
        edge = min(picture.size)
        left, top = ((length - edge) // 2 for length in picture.size)
        picture = picture.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
        found.append(np.asarray(picture, np.float32) / 255)
    return np.stack(found)


@pytest.mark.long
def test_the_released_size_gives_the_same_tokens_and_pictures_of_photographs(tmp_path):
    pytest.importorskip("skimage", reason="the photographs come with the extra `photos`")
    pytest.importorskip("matplotlib", reason="the photographs come with the extra `photos`")
    encoder, decoder = pair = reference("released")
    fields, variables = ours(pair, tmp_path, old=False)
    model = Model(**fields)
    assert model == Model()
    sizes = [sum(p.numel() for p in module.parameters()) for module in pair]
    assert sizes == pytest.approx([53.8e6, 43.8e6], rel=2e-3)
    images = photographs()
    expected = logits_of(encoder, images)
    variables = jax.tree.map(jax.numpy.asarray, variables)  # arguments: XLA would fold constants for long

    @optimized
    def read(variables, images):
        return [model.apply(variables, images, method=method) for method in ("encode", "tokenize")]

    logits, ids = map(np.asarray, read(variables, images))
    assert_close(logits, expected)

    theirs = expected.reshape(4, 1024, -1)
    top = np.sort(theirs, -1)[..., -2:]
    clear = top[..., 1] - top[..., 0] >= 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(ids[clear], theirs.argmax(-1)[clear])
    assert len(np.unique(ids)) > 10

    one_hot = np.eye(8192, dtype=np.float32)[ids[:1].reshape(1, 32, 32)]
    expected = outputs_of(decoder, one_hot)

    @optimized
    def write(variables, codes, ids):
        return model.apply(variables, codes, method="decode"), model.apply(variables, ids, method="detokenize")

    outputs, back = map(np.asarray, write(variables, one_hot, ids[:1]))
    assert_close(outputs, expected)
    pixels = from_torch(dall_e.unmap_pixels(torch.sigmoid(to_torch(expected)[:, :3])))
    np.testing.assert_allclose(back, pixels, rtol=0, atol=1e-4)
