"""Outputs of a frozen encoder on disk: each distinct caption once, of this encoder and these captions."""

import ml_dtypes
import numpy as np
import pytest

from t2i_jax import files
from t2i_jax.data import text_features
from t2i_jax.data.text_features import TextFeatures, stale, write_features
from t2i_jax.errors import UserError

STAMP = {"encoder": "of these weights", "captions": "of these captions"}
S, D = 5, 3


def rows(*captions):
    """Ids and mask of captions, which are words of digits."""
    for caption in captions:
        ids = np.zeros(S, np.int32)
        ids[: len(caption)] = list(map(int, caption))
        yield ids, np.arange(S) < len(caption)


class Encoder:
    """Its outputs are the ids times 1, 2 and 3; `rows` counts the captions it was given."""

    def __init__(self, dtype=np.float32):
        self.rows, self._dtype = 0, dtype

    def __call__(self, ids, masks):
        self.rows += len(ids)
        features = (ids[:, :, None] * np.arange(1, D + 1)).astype(self._dtype)
        return np.where(masks[:, :, None], features, np.array(np.nan, self._dtype))  # padding means nothing


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "text_features"
    write_features(folder, rows("123", "45", "123"), Encoder(), **STAMP)
    return folder


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_each_distinct_caption_is_encoded_once_and_found_again(tmp_path, monkeypatch, chunk, dtype):
    monkeypatch.setattr(text_features, "CHUNK", chunk)
    captions, encoder = ["123", "45", "9", "123", "45", "12345", "123"], Encoder(dtype)
    write_features(tmp_path / "new", rows(*captions), encoder, **STAMP)
    features = TextFeatures(tmp_path / "new")
    assert encoder.rows == features.count == 4
    for ids, mask in rows(*captions):
        found = features(ids, mask)
        assert (found.shape, found.dtype) == ((S, D), dtype)
        np.testing.assert_array_equal(found.astype(int), ids[:, None] * [1, 2, 3])  # 0 at padding, not NaN


def test_padding_takes_no_place(folder):
    assert (folder / text_features.FEATURES).stat().st_size == (3 + 2) * D * 4


def test_the_same_captions_with_other_masks_are_others(folder, tmp_path):
    ids, mask = next(rows("123"))
    with pytest.raises(UserError, match="lack a caption; delete the folder, and they are computed again"):
        TextFeatures(folder)(ids, mask & (np.arange(S) < 2))
    with pytest.raises(UserError, match="lack a caption"):
        TextFeatures(folder)(ids + 1, mask)


def test_features_of_other_weights_or_other_captions_are_stale(folder, tmp_path):
    assert stale(folder, **STAMP) == ""
    assert stale(tmp_path / "none", **STAMP) == text_features.MISSING
    for name in STAMP:
        assert stale(folder, **STAMP | {name: "changed"}) == f"made of {name} {STAMP[name][:12]}, now it is changed"


@pytest.mark.parametrize("name", [text_features.FEATURES, text_features.KEYS, files.MANIFEST])
def test_a_flipped_bit_makes_them_stale(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    assert stale(folder, **STAMP).startswith(f"corrupt: {folder / name} is corrupt")


class Killed(BaseException):
    """Nothing is cleaned up after it, as after a kill."""


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("at", ["write", "manifest", "rename"])
def test_a_kill_before_the_rename_leaves_nothing_that_is_used(tmp_path, monkeypatch, at, before):
    folder, new = tmp_path / "text_features", STAMP | {"encoder": "of other weights"}
    if before:
        write_features(folder, rows("77"), Encoder(), **STAMP)

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if at == "manifest":
            patch.setattr(files, "write_manifest", kill)
        elif at == "rename":
            patch.setattr(type(folder), "rename", kill)
        with pytest.raises(Killed):
            write_features(folder, rows("123", "45"), kill if at == "write" else Encoder(), **new)
    assert folder.exists() == before
    assert stale(folder, **new)  # neither nothing nor what stood there is taken for it
    assert (stale(folder, **STAMP) == "") == before
    write_features(folder, rows("123", "45"), Encoder(), **new)  # over what the first attempt left
    assert stale(folder, **new) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["text_features"]


def test_a_full_disk_leaves_nothing_and_no_captions_say_so(tmp_path):
    def full(ids, masks):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_features(tmp_path / "new", rows("1"), full, **STAMP)
    with pytest.raises(UserError, match=r"^no captions to encode into .*; the split is empty$"):
        write_features(tmp_path / "new", rows(), Encoder(), **STAMP)
    assert list(tmp_path.iterdir()) == []
