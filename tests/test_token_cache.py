"""Token shards: what is written is read, and whatever is wrong with them is an error that names the file."""

import numpy as np
import pytest
from damage import DAMAGE

from t2i_jax import files
from t2i_jax.data import token_cache
from t2i_jax.data.token_cache import Tokens
from t2i_jax.errors import UserError

OTHER = "7" * 64
STAMP = {"tokenizer": "0123456789abcdef" * 4, "data": "fedcba9876543210" * 4}


def examples(count, length=5):
    """Ids up to 2**31 - 1 and one to three captions beyond ASCII."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**31, (count, length), dtype=np.int64)
    return [(row, [f"caption {number} – „é“ 七", "b", ""][: 1 + number % 3]) for number, row in enumerate(ids)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten examples in shards of four."""
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)
    token_cache.write_tokens(tmp_path / "train", examples(10), **STAMP)
    return tmp_path / "train"


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (4, 1), (5, 2), (10, 3)])
def test_what_is_written_is_read(tmp_path, monkeypatch, count, shards):
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)
    folder, written = tmp_path / "a" / "train", examples(count)
    token_cache.write_tokens(folder, iter(written), **STAMP)
    assert len(list(folder.glob("*.array_record"))) == shards
    assert files.read_json(folder / files.MANIFEST)["count"] == count
    tokens = Tokens(folder, **STAMP)
    dataset = tokens.dataset()
    assert len(dataset) == tokens.count == count
    for number, (ids, captions) in enumerate(written):
        example = dataset[number]
        assert example["ids"].dtype == np.int32
        np.testing.assert_array_equal(example["ids"], ids)
        assert example["captions"] == captions


def test_shards_are_the_same_bytes_each_time(folder, tmp_path):
    token_cache.write_tokens(tmp_path / "again", examples(10), **STAMP)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00000.array_record", "00001.array_record", "00002.array_record", "digests.json"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"tokenizer": OTHER}, "made of tokenizer 0123456789ab, now it is 777777777777"),
        ({"data": OTHER}, "made of data fedcba987654, now it is 777777777777"),
        (
            {"tokenizer": OTHER, "data": OTHER},
            "made of tokenizer 0123456789ab, now it is 777777777777 and data fedcba987654, now it is 777777777777",
        ),
    ],
)
def test_tokens_of_another_tokenizer_or_of_other_data(folder, change, part):
    assert token_cache.stale(folder, **STAMP) == ""
    assert token_cache.stale(folder, **(STAMP | change)) == part
    with pytest.raises(UserError) as error:
        Tokens(folder, **(STAMP | change))
    assert str(error.value) == f"tokens in {folder} are {part}; the same command encodes them again"


def test_no_tokens_yet(tmp_path):
    assert token_cache.stale(tmp_path / "train", **STAMP) == token_cache.MISSING


def test_new_tokens_take_the_place_of_old_ones(folder):
    """Whoever has opened the old ones reads on in them, and nothing of them stays in the folder."""
    old = Tokens(folder, **STAMP)
    token_cache.write_tokens(folder, examples(3), **(STAMP | {"data": OTHER}))
    assert Tokens(folder, **(STAMP | {"data": OTHER})).count == 3
    assert [path.name for path in folder.parent.iterdir()] == ["train"]
    assert len(list(folder.glob("*.array_record"))) == 1
    for read, (ids, _) in zip(old.dataset(), examples(10), strict=True):
        np.testing.assert_array_equal(read["ids"], ids)


@pytest.mark.parametrize("name", ["00000.array_record", "00002.array_record"])
@pytest.mark.parametrize("fault", DAMAGE)
def test_a_corrupt_shard(folder, name, fault):
    DAMAGE[fault](folder / name)
    with pytest.raises(UserError) as error:
        Tokens(folder, **STAMP)
    what = "is corrupt (its checksum does not fit)" if (folder / name).exists() else "is missing"
    way_out = f"delete {folder} to encode the pictures again"
    assert str(error.value) == f"tokens: {folder / name} {what}; {way_out}"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"tokenizer": "x", "sha256": "y"}'])
def test_a_broken_manifest(folder, content):
    manifest = folder / files.MANIFEST
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(UserError) as error:
        Tokens(folder, **STAMP)
    assert str(error.value).startswith(f"tokens: {manifest} is {'missing' if content is None else 'corrupt'}")
    assert str(error.value).endswith(f"; delete {folder} to encode the pictures again")
    assert "\n" not in str(error.value)


def test_an_interrupted_write_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)

    def interrupted():
        yield from examples(6)
        raise KeyboardInterrupt

    folder = tmp_path / "train"
    with pytest.raises(KeyboardInterrupt):
        token_cache.write_tokens(folder, interrupted(), **STAMP)
    assert not folder.exists()
    token_cache.write_tokens(folder, examples(3), **STAMP)  # over what the first attempt left
    assert Tokens(folder, **STAMP).count == 3
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_part_at_a_time_is_all(folder, monkeypatch, chunk):
    monkeypatch.setattr(token_cache, "CHUNK", chunk)
    tokens, written = Tokens(folder, **STAMP), examples(10)
    parts = list(tokens.ids())
    assert max(len(part) for part in parts) == min(chunk, 10)
    assert {part.dtype for part in parts} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(np.concatenate(parts), np.stack([ids for ids, _ in written]))
    assert list(tokens.captions()) == [caption for _, captions in written for caption in captions]
