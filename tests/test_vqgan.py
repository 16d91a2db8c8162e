"""VQGAN: its sizes, its tokens, and the same numbers as taming's layout in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax import models
from t2i_jax.config import load_config
from t2i_jax.convert import vqgan as convert
from t2i_jax.models.vqgan import Decoder, Encoder, Model

SIZES = {
    "f4": {"width": 8, "multipliers": (1, 2, 3), "blocks": 1, "attention": (1,), "groups": 4},
    "f2": {"width": 12, "multipliers": (2, 3), "blocks": 1, "attention": (0,), "groups": 6},
}
SHARED = {"codebook_size": 31, "image_size": 16, "channels": 3, "latent_width": 20, "code_width": 10}


def shapes_of(model):
    images = np.zeros((1, model.image_size, model.image_size, model.channels), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def parameter_count(part):
    return sum(x.size for x in jax.tree.leaves(part))


def test_the_released_f16_has_its_published_size():
    """76,073,859 parameters: an encoder of 29.3 million, a decoder of 42.4, a codebook of 4.2."""
    shapes = shapes_of(Model(codebook_size=16_384, image_size=256))["params"]
    assert parameter_count(shapes) == 76_073_859
    assert parameter_count(shapes["code"]) == 16_384 * 256
    assert shapes["encoder"]["down_4"]["attn_1"]["q"]["kernel"].shape == (1, 1, 512, 512)
    attention = {name.partition("/attn_0")[0] for name in flatten_dict(shapes, sep="/") if "attn_0" in name}
    assert attention == {"encoder/down_4", "decoder/up_4"}


@pytest.mark.parametrize(("variant", "side", "codes"), [("f16", 16, 16_384), ("f8", 32, 8192), ("emoji", 8, 1024)])
def test_tokens_of_the_variants(variant, side, codes):
    assert models.build(load_config(f"vqgan:{variant}")).layout == (("code", side, side, 1, 0, codes),)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 18}, "image_size 18 is not divisible by 4;"),
        ({"attention": (3,)}, "attention 3 is no level from 0 to 2"),
        ({"groups": 5}, "groups 5 does not divide width 8"),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    with pytest.raises(ValueError, match=said):
        shapes_of(Model(**{**SHARED, **SIZES["f4"], **fields}))


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def params_of(tensors, fields):
    """Params from taming's tensors."""
    shapes = {name: x.shape for name, x in flatten_dict(shapes_of(Model(**fields))["params"], sep="/").items()}
    return unflatten_dict(convert.convert(tensors, shapes, "this"), sep="/")


def in_torch(fields):
    """taming's model, and its tensors as arrays."""
    vqgans = pytest.importorskip("vqgans", reason="torch, the reference, comes with the extra `parity`")
    theirs = vqgans.VQGAN(fields).eval()
    return theirs, {name: x.detach().numpy() for name, x in theirs.state_dict().items()}, vqgans


def test_encoder_and_decoder_agree_with_torch():
    """Sides that are unequal and odd: half of these is rounded down."""
    fields, sides = SHARED | SIZES["f4"], (21, 27)
    theirs, tensors, vqgans = in_torch(fields)
    params = params_of(tensors, fields)
    images = np.random.default_rng(0).random((2, *sides, 3), np.float32) * 2 - 1
    shared = {name: fields[name] for name in ("attention", "blocks", "groups")} | {"dtype": "float32"}
    widths = tuple(fields["width"] * multiplier for multiplier in fields["multipliers"])
    encoder = Encoder(fields["latent_width"], fields["width"], widths, **shared)
    features = jax.jit(encoder.apply)({"params": params["encoder"]}, images)
    expected = vqgans.from_torch(theirs.encoder(vqgans.to_torch(images)))
    assert_close(features, expected)
    assert np.std(features) > 0.1
    decoder = Decoder(3, widths, **shared)
    pixels = jax.jit(decoder.apply)({"params": params["decoder"]}, expected)
    assert_close(pixels, vqgans.from_torch(theirs.decoder(vqgans.to_torch(expected))))
    assert np.std(pixels) > 0.1


@pytest.mark.slow
def test_ids_and_pictures_agree_with_torch(tmp_path):
    """Through a checkpoint that torch saves, an optimizer's moments and all."""
    fields = SHARED | SIZES["f2"]
    theirs, _, vqgans = in_torch(fields)
    vqgans.save(theirs, tmp_path / "last.ckpt")
    tensors, left_out = convert.read(tmp_path / "last.ckpt")
    assert left_out == 1
    model, params = Model(**fields), params_of(tensors, fields)
    variables = {"params": params, "codebook": {"code": {"cluster_size": np.ones(fields["codebook_size"])}}}
    variables = jax.tree.map(jnp.asarray, variables)
    images = np.random.default_rng(1).random((4, 16, 16, 3), np.float32)
    reconstructions, _, ids = jax.jit(model.apply)(variables, images)
    expected = theirs.tokens(vqgans.to_torch(2 * images - 1))
    np.testing.assert_array_equal(ids, expected)
    assert len(np.unique(ids)) > 5
    grid = theirs.quantize.embedding(expected).reshape(4, 8, 8, -1).permute(0, 3, 1, 2)
    pixels = (vqgans.from_torch(theirs.decoder(theirs.post_quant_conv(grid))) + 1) / 2
    assert_close(reconstructions, pixels)
    back = jax.jit(lambda ids: model.apply(variables, ids, method="detokenize"))(ids)
    np.testing.assert_allclose(back, np.clip(reconstructions, 0, 1), atol=1e-5)
