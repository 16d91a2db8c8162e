"""Released BERT and GPT-2: three formats, old and new names, sizes, and what is said where something differs."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from released import (
    BERT,
    BERT_JSON,
    GPT2_,
    GPT2_JSON,
    KINDS,
    D,
    P,
    bert_heads,
    bert_tensors,
    buffers,
    gpt2_tensors,
    old_names,
    write,
)

from t2i_jax.convert import bert, gpt2
from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2

BASE, OTHERS = ((768, 12, 12),), ((1024, 24, 16), (1280, 36, 20))  # width, layers, heads; the last of GPT-2 alone


def shapes_of(module, *inputs):
    return jax.tree.map(np.shape, jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_bert_is_read_whole(tmp_path, kind, prefix):
    own = bert_tensors()
    named = {prefix + name: array for name, array in own.items()} | bert_heads(prefix)
    if prefix and kind != "msgpack":
        named = old_names(named)
    params = bert.load(write(tmp_path / "bert", named, kind, BERT_JSON), BERT, "config.model.encoder")
    ids = np.zeros((1, 2), np.int32)
    assert jax.tree.map(np.shape, params) == shapes_of(Bert(**BERT), ids, ids > 0)
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    assert len(np.unique(flat)) == len(flat)  # no tensor was used twice
    layer = "encoder.layer.1.attention"
    layers = params["encoder"]["layers"]
    for part in ("query", "key", "value"):
        kernel = layers["attn"][part]["kernel"][1]
        np.testing.assert_array_equal(kernel, own[f"{layer}.self.{part}.weight"].T)
    np.testing.assert_array_equal(layers["attn"]["out"]["kernel"][1], own[f"{layer}.output.dense.weight"].T)
    np.testing.assert_array_equal(layers["ln_attn"]["bias"][1], own[f"{layer}.output.LayerNorm.bias"])
    np.testing.assert_array_equal(layers["mlp"]["down"]["kernel"][2], own["encoder.layer.2.output.dense.weight"].T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_gpt2_is_read_but_for_its_words(tmp_path, kind, prefix):
    own = gpt2_tensors()
    named = {prefix + name: array for name, array in own.items()}
    if kind != "msgpack":
        named |= buffers(prefix)
    if prefix:
        named["lm_head.weight"] = own["wte.weight"].copy()
    params = gpt2.load(write(tmp_path / "gpt2", named, kind, GPT2_JSON), GPT2_, "config.model.decoder")
    memory = np.zeros((1, 2, D), np.float32)
    expected = shapes_of(GPT2(**GPT2_), np.zeros((1, 3), np.int32), memory, memory[..., 0] > 0)
    del expected["token_embed"]
    layers = params["decoder"]["layers"]
    assert not any(x.any() for x in layers["cross_attn"].pop("out").values())
    expected["decoder"]["layers"]["cross_attn"] = {}
    del expected["decoder"]["layers"]["ln_cross_attn"]
    assert jax.tree.map(np.shape, params) == expected
    source = {name[4:]: array for name, array in own.items() if name.startswith("h.2.")}
    fused = np.concatenate([layers["attn"][part]["kernel"][2] for part in ("query", "key", "value")], -1)
    np.testing.assert_array_equal(fused, source["attn.c_attn.weight"])
    np.testing.assert_array_equal(layers["mlp"]["down"]["kernel"][2], source["mlp.c_proj.weight"])
    np.testing.assert_array_equal(layers["ln_mlp"]["scale"][2], source["ln_2.weight"])
    np.testing.assert_array_equal(params["position_embed"]["embedding"], own["wpe.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_read_as_float32(tmp_path, kind):
    halved = {name: array.astype(ml_dtypes.bfloat16) for name, array in bert_tensors().items()}
    rounded = {name: array.astype(np.float32) for name, array in halved.items()}
    params, expected = (
        bert.load(write(tmp_path / name, tensors, kind, BERT_JSON), BERT, "f")
        for name, tensors in (("halved", halved), ("rounded", rounded))
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_positions_are_kept_or_interpolated(tmp_path):
    own = gpt2_tensors()
    own["wpe.weight"] = np.arange(P, dtype=np.float32)[:, None] + np.zeros(D, np.float32)
    folder = write(tmp_path / "gpt2", own, config=GPT2_JSON)
    for count in (1, 4, P, 19, 64):
        params = gpt2.load(folder, {**GPT2_, "positions": count}, "f")
        table = params["position_embed"]["embedding"]
        np.testing.assert_allclose(table[:, 0], np.linspace(0, P - 1, count), rtol=1e-6)
        assert table.dtype == np.float32
    texts = bert_tensors()
    params = bert.load(write(tmp_path / "bert", texts, config=BERT_JSON), {**BERT, "max_positions": 4}, "f")
    np.testing.assert_array_equal(
        params["position_embed"]["embedding"], texts["embeddings.position_embeddings.weight"][:4]
    )


@pytest.mark.parametrize("releases", [BASE, pytest.param(OTHERS, marks=pytest.mark.long)], ids=["base", "others"])
def test_the_releases_fit_their_sizes(releases):
    """Tables against the modules' own shapes, without an array, for releases of a plain size."""
    ids, seen = np.zeros((1, 2), np.int32), np.ones((1, 2), bool)
    for width, layers, heads in releases[:1]:
        sizes = {"vocab_size": 30522, "width": width, "layers": layers, "heads": heads, "mlp_width": 4 * width}
        sizes["max_positions"] = 512
        check(bert.table(layers), bert.letters(sizes), shapes_of(Bert(**sizes), ids, seen))
    for width, layers, heads in releases:
        sizes = {"vocab_size": 8193, "width": width, "layers": layers, "heads": heads, "mlp_width": 4 * width}
        sizes["positions"] = 1024
        memory = jax.ShapeDtypeStruct((1, 2, width), np.float32)
        check(gpt2.table(layers), gpt2.letters(sizes), shapes_of(GPT2(**sizes), ids, memory, seen))


def check(table, letters, shapes):
    from t2i_jax.convert import tables

    rows = {name: np.broadcast_to(np.float32(0), tables.shape_of(row, letters)) for name, row in table.items()}
    flat = {name: array.shape for name, array in tables.stack_layers(rows).items()}
    assert flat == flatten_dict(shapes, sep="/")
