"""Weights as others save them: in several files, behind a wrapper's prefix, with lies in them."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from released import BERT, BERT_JSON, bert_tensors, write

from t2i_jax.convert import bert, hub, tables, vqgan, weights
from t2i_jax.errors import UserError

TENSORS = {f"layer.{i}.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * i for i in range(4)}
INDEX = "model.safetensors.index.json"


def shard(folder, tensors=TENSORS, files=2):
    """Write tensors as `save_pretrained` does with a small `max_shard_size`; returns the index."""
    places = {name: f"model-{i % files + 1:05d}-of-{files:05d}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        own = {name: tensors[name] for name in tensors if places[name] == file}
        (folder / file).write_bytes(safetensors.numpy.save(own, {"format": "pt"}))
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": places}))
    return folder / INDEX


def refused(path):
    with pytest.raises(UserError) as error:
        weights.read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_weights_in_several_files_are_read_as_one(tmp_path):
    index = shard(tmp_path)
    assert weights.find(tmp_path) == weights.find(index) == index
    equal(weights.read(index), TENSORS)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        write(folder, bert_tensors(), config=BERT_JSON)
    shard(parts, safetensors.numpy.load_file(parts / "model.safetensors"), 3)
    (parts / "model.safetensors").unlink()
    one, several = (bert.load(folder, BERT, "config.model.encoder") for folder in (whole, parts))
    equal(dict(tables.flatten_dict(one)), dict(tables.flatten_dict(several)))


def test_a_part_that_is_missing_is_named(tmp_path):
    index = shard(tmp_path)
    last = tmp_path / "model-00002-of-00002.safetensors"
    content = last.read_bytes()
    last.unlink()
    assert "names model-00002-of-00002.safetensors, which is not there; fetch it too" in refused(index)
    with pytest.raises(UserError, match="holds no model-00002-of-00002"):
        weights.find(tmp_path)
    last.write_bytes(safetensors.numpy.save({"layer.1.weight": TENSORS["layer.1.weight"]}))
    assert "names tensor layer.3.weight, which is not in model-00002-of-00002.safetensors" in refused(index)
    last.write_bytes(content[:-1])
    assert "model-00002-of-00002.safetensors is damaged" in refused(index)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": []}', b"[" * 100_000, b'{"weight_map": {"a": 1}}']
    + [
        json.dumps({"weight_map": {"a": name}}).encode()
        for name in (
            "../a.safetensors",
            "/etc/passwd",
            "a/b.bin",
            "..",
            "",
            "a.pkl",
            "a\\b",
            "\0.bin",
            "a" * 300 + ".bin",
        )
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, content):
    (tmp_path / INDEX).write_bytes(content)
    said = refused(tmp_path / INDEX)
    assert INDEX in said
    assert "; fetch it" in said


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_every_name_is_taken_off_and_said(tmp_path, prefix, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({prefix + name: x for name, x in TENSORS.items()}))
    equal(weights.read(path), TENSORS)
    assert f"{str(prefix)!r}, which torch put before every name, is taken off" in capsys.readouterr().err
    some = {prefix + "a": np.zeros(1), "b": np.zeros(1)}
    path.write_bytes(safetensors.numpy.save(some))
    assert weights.read(path).keys() == some.keys()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused_by_name(value):
    tensors = {"a": np.zeros((2, 3)), "b": np.array([1, value, 2])}
    rows = {"x": tables.Row((2, 3), "a"), "y": tables.Row((3,), "b")}
    with pytest.raises(UserError, match=r"^file does not fit this model: b holds numbers that are not finite$"):
        tables.fill(tensors, rows, origin="file")
    tensors["b"][1] = 3e38
    tables.fill(tensors, rows, origin="file")


def test_safetensors_that_lie_are_refused_in_one_line(tmp_path, record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st, path = hypothesis.strategies, tmp_path / "a.safetensors"
    numbers = st.integers(-(2**65), 2**65) | st.sampled_from([0, 1, 2, 3, 4, 8, 12, 24, 2**63, 1.5, None, "8"])
    dtypes = st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "BOOL", "F8_E4M3", "F4", "U64", "C64", "X", "", 7])
    entry = st.fixed_dictionaries(
        {"dtype": dtypes, "shape": st.lists(numbers, max_size=4), "data_offsets": st.lists(numbers, max_size=3)}
    )
    headers = st.dictionaries(st.text(max_size=5), entry | st.none() | numbers, max_size=3)
    junk = st.recursive(st.none() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=4)

    @hypothesis.given(
        header=headers | junk, claimed=st.none() | st.integers(0, 2**64 - 1), data=st.binary(max_size=24)
    )
    def check(header, claimed, data):
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + data)
        record_fault("safetensors with lying headers", "tried")
        try:
            tensors = hub.read(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017, both ends are good
            assert str(path) in str(error)  # noqa: PT017
            record_fault("safetensors with lying headers", "refused")
        else:
            assert sum(x.nbytes for x in tensors.values()) == len(data)
            record_fault("safetensors with lying headers", "survived")

    check()


def test_safetensors_that_are_cut_or_have_another_header_are_refused_or_as_large_as_before(tmp_path, record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st, path = hypothesis.strategies, tmp_path / "a.safetensors"
    whole = safetensors.numpy.save(TENSORS)
    header = st.integers(0, len(whole) - 97)  # numbers have no checksum: a change in the last 96 bytes is not seen

    @hypothesis.given(place=header, byte=st.integers(1, 255), cut=st.integers(0, len(whole)))
    def check(place, byte, cut):
        content = bytearray(whole)
        content[place] ^= byte
        for some in (content[:cut], content):
            path.write_bytes(some)
            record_fault("safetensors cut, or changed in their header", "tried")
            try:
                tensors = hub.read(path)
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017, both ends are good
                record_fault("safetensors cut, or changed in their header", "refused")
            else:
                record_fault("safetensors cut, or changed in their header", "survived")
                assert sum(x.nbytes for x in tensors.values()) == 96
                assert len(some) == len(whole)

    check()


def test_what_a_config_or_a_name_claims_takes_no_memory():
    """A table has rows for each layer, and shapes of a width were once made to be compared."""
    sizes = {"n_layer": "layers", "n_embd": "width"}
    names = {ours: theirs for theirs, ours in sizes.items()}
    for field, value in (("n_layer", 10**9), ("n_embd", 2**40)):
        with pytest.raises(UserError, match=rf"^it has {field} {value}, above \d+; fetch it again$"):
            tables.read_sizes({"n_layer": 2, "n_embd": 8, field: value}, names, {}, "it")
    rows = {"x": tables.Row((2**31 - 1, 2**31 - 1, 3), "a T")}
    with pytest.raises(UserError, match=r"a has shape \(2,\), not \(3, 2147483647, 2147483647\)"):
        tables.fill({"a": np.zeros(2)}, rows, origin="file")
    assert tables.layers_in([f"h.{'9' * 5000}.x", "h.1.x"], "h") == 2
    assert vqgan._count([f"h.{'9' * 5000}.x", "h.0.x"], r"h\.([0-9]{1,6})\.x") == 1
    with pytest.raises(UserError, match="holds no VQGAN"):
        vqgan.sizes_of({f"encoder.down.{'9' * 5000}.block.0.conv1.weight": np.zeros(2)}, "it")
