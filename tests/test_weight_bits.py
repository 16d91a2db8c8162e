"""Drawing by weights of fewer bits: what is read by them, and that all else of a draw stays as it was."""

import dalles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_pixelcnn
import test_sampling
import test_transformer

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.nn.products import to_int8
from t2i_jax.nn.stack import unstack, with_bits
from t2i_jax.sampling import decoding
from t2i_jax.sampling.autoregressive import Autoregressive
from t2i_jax.sampling.decoding import decode

BITS = pytest.mark.parametrize("bits", [16, 8])


def models():
    model, variables, *texts = test_sampling.translator()
    yield model, variables["params"], *texts
    yield test_transformer.MODEL, test_transformer.params(), *map(jnp.asarray, test_transformer.batch(5)[:2])
    yield *dalles.model_and_params(), *dalles.batch(5)[:2]


def draw(model, params, text_ids, text_mask, first=0, count=5, **settings):
    keys = jax.random.split(jax.random.key(3), 5)[first : first + count]
    rows = slice(first, first + count)
    condition = text_ids[rows], text_mask[rows], jnp.zeros(len(keys), bool)
    return np.asarray(Autoregressive(**settings).draw(model, params, condition, keys))


@BITS
@pytest.mark.parametrize("number", range(3), ids=["translator", "transformer", "dalle"])
def test_an_image_is_its_own_in_any_batch_and_window(number, bits):
    case = list(models())[number]
    ids = draw(*case, weight_bits=bits, temperature=2.0)
    assert ids.min() >= 0
    assert ids.max() < case[0].codebook_size
    assert len(np.unique(ids, axis=0)) > 1
    np.testing.assert_array_equal(draw(*case, first=2, count=1, weight_bits=bits, temperature=2.0)[0], ids[2])
    np.testing.assert_array_equal(draw(*case, weight_bits=bits, temperature=2.0, window=3), ids)


def test_the_loop_reads_int8_and_the_text_is_read_in_float32():
    model, params, text_ids, text_mask = next(models())
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "unguided_tokens": 0}
    condition = text_ids[:2], text_mask[:2], jnp.zeros(2, bool)
    keys = jax.random.split(jax.random.key(0), 2)

    def lowered(bits):
        inputs = model, params, condition, keys, settings | {"guidance_scale": 1.0}
        return decode.lower(*inputs, guided=False, weight_bits=bits).as_text()

    whole, few = (
        [line for line in lowered(bits).splitlines() if "dot_general" in line and "xf32>, tensor<" in line]
        for bits in (32, 8)
    )
    eights = [line for line in lowered(8).splitlines() if "dot_general" in line and "xi8>" in line]
    kernels = 8  # of a layer that a step reads: query, key, value, out, query and out of the memory, up, down
    assert len(eights) == kernels * model.decoder["layers"]
    assert len(whole) - len(few) == len(eights)
    assert "xi8>" not in lowered(32)


def test_a_model_of_bfloat16_draws_by_int8_of_the_weights_as_they_are():
    model, params, *texts = next(models())
    model = model.clone(dtype="bfloat16")
    ids = draw(model, params, *texts, weight_bits=8, temperature=2.0)
    np.testing.assert_array_equal(
        draw(model, params, *texts, first=2, count=1, weight_bits=8, temperature=2.0)[0], ids[2]
    )
    bound = decoding._bind(model, with_bits(unstack(params), 8)).args[0]["params"]
    kernel = params["gpt2"]["decoder"]["layers"]["mlp"]["up"]["kernel"][0]
    found = bound["gpt2"]["decoder"]["layers_0"]["mlp"]["up"]["kernel"]
    for part, exact in zip(found, to_int8(kernel), strict=True):
        np.testing.assert_array_equal(part, exact)
    assert bound["head"]["kernel"].dtype == jnp.bfloat16


@BITS
def test_parts_of_a_draw_end_as_the_whole(bits):
    case = next(models())
    keys = jax.random.split(jax.random.key(3), 5)
    condition = *(x[:5] for x in case[2:4]), jnp.zeros(5, bool)
    sampler = Autoregressive(weight_bits=bits, guidance_scale=2.0)
    parts = list(sampler.draw_in_parts(*case[:2], condition, keys, parts=3))
    np.testing.assert_array_equal(parts[-1][0], sampler.draw(*case[:2], condition, keys))


@BITS
def test_a_model_without_such_layers_says_so(bits, tmp_path):
    model, params = test_pixelcnn.small()[:2]
    text_ids, text_mask = test_pixelcnn.texts(2)
    said = f"^weight_bits {bits} is of transformer layers, and this model has none; leave it out$"
    with pytest.raises(UserError, match=said):
        tasks.make(load_config("prior:smoke", [f"--config.sampling.weight_bits={bits}"])).check(tmp_path)
    with pytest.raises(UserError, match=said):
        Autoregressive(weight_bits=bits).draw(
            model, params, (text_ids, text_mask, jnp.zeros(2, bool)), jax.random.split(jax.random.key(0), 2)
        )
