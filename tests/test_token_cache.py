"""Token shards: what is written is read, and whatever is wrong with them is an error that names the file."""

import numpy as np
import pytest

from t2i_jax import files
from t2i_jax.data import token_cache
from t2i_jax.errors import UserError

DIGEST = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


def examples(count, length=5):
    """Ids up to 2**31 - 1 and one to three captions beyond ASCII."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**31, (count, length), dtype=np.int64)
    return [(row, [f"caption {number} – „é“ 七", "b", ""][: 1 + number % 3]) for number, row in enumerate(ids)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten examples in shards of four."""
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)
    token_cache.write_tokens(tmp_path / "train", examples(10), DIGEST)
    return tmp_path / "train"


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (4, 1), (5, 2), (10, 3)])
def test_what_is_written_is_read(tmp_path, monkeypatch, count, shards):
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)
    folder, written = tmp_path / "a" / "train", examples(count)
    token_cache.write_tokens(folder, iter(written), DIGEST)
    assert len(list(folder.glob("*.array_record"))) == shards
    assert files.read_json(folder / files.MANIFEST)["count"] == count
    dataset = token_cache.open_tokens(folder, DIGEST)
    assert len(dataset) == count
    for number, (ids, captions) in enumerate(written):
        example = dataset[number]
        assert example["ids"].dtype == np.int32
        np.testing.assert_array_equal(example["ids"], ids)
        assert example["captions"] == captions


def test_shards_are_the_same_bytes_each_time(folder, tmp_path):
    token_cache.write_tokens(tmp_path / "again", examples(10), DIGEST)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00000.array_record", "00001.array_record", "00002.array_record", "digests.json"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_another_tokenizer_s_tokens(folder):
    with pytest.raises(UserError) as error:
        token_cache.open_tokens(folder, OTHER)
    assert str(error.value) == (
        f"tokens in {folder} were made by tokenizer 0123456789ab, this run's is fedcba987654;"
        f" delete {folder} to encode the pictures again"
    )


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["00000.array_record", "00002.array_record"])
@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()], ids=["flip", "truncate", "unlink"])
def test_a_damaged_shard(folder, name, damage):
    damage(folder / name)
    with pytest.raises(UserError) as error:
        token_cache.open_tokens(folder, DIGEST)
    what = "is damaged (its digest does not fit)" if (folder / name).exists() else "is missing"
    way_out = f"delete {folder} to encode the pictures again"
    assert str(error.value) == f"tokens: {folder / name} {what}; {way_out}"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"tokenizer": "x", "sha256": "y"}'])
def test_a_broken_manifest(folder, content):
    manifest = folder / files.MANIFEST
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(UserError) as error:
        token_cache.open_tokens(folder, DIGEST)
    assert str(error.value).startswith(f"tokens: {manifest} is {'missing' if content is None else 'damaged'}")
    assert str(error.value).endswith(f"; delete {folder} to encode the pictures again")
    assert "\n" not in str(error.value)


def test_an_interrupted_write_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)

    def interrupted():
        yield from examples(6)
        raise KeyboardInterrupt

    folder = tmp_path / "train"
    with pytest.raises(KeyboardInterrupt):
        token_cache.write_tokens(folder, interrupted(), DIGEST)
    assert not folder.exists()
    token_cache.write_tokens(folder, examples(3), DIGEST)  # over what the first attempt left
    assert len(token_cache.open_tokens(folder, DIGEST)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_all_at_once_is_one_by_one(tmp_path):
    examples = [(np.array([number, 2 * number]), [f"number {number}"]) for number in range(7)]
    token_cache.write_tokens(tmp_path / "tokens", examples, "digest")
    ids, captions = token_cache.read_tokens(tmp_path / "tokens", "digest")
    one_by_one = token_cache.open_tokens(tmp_path / "tokens", "digest")
    assert ids.tolist() == [one_by_one[number]["ids"].tolist() for number in range(7)]
    assert captions == [one_by_one[number]["captions"] for number in range(7)]
    assert ids.dtype == np.int32
