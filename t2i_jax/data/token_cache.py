"""Token shards: what a tokenizer made of a split, stamped with the tokenizer's and the data's digest."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from t2i_jax import files
from t2i_jax.errors import UserError

SHARD_SIZE = 16384  # examples a shard
MISSING = "missing"
CHUNK = 2048  # examples that are held at a time where all are gone through


def write_tokens(
    folder: str | Path, examples: Iterable[tuple[np.ndarray, list[str]]], *, tokenizer: str, data: str
) -> None:
    """Write shards and their manifest; the folder appears under its name only when all of it is written.

    Args:
      folder: where the shards go; what stands there is replaced, and so is an unfinished attempt beside it.
      examples: pairs of ids [N] and captions.
      tokenizer: digest of the tokenizer that made the ids.
      data: fingerprint of the images and captions.

    Raises:
      UserError: there is no example, or a shard cannot be written.
      OSError: the disk is full or read-only.
    """
    with files.replacing(folder) as partial:
        count = _write_shards(partial, examples)
        files.write_manifest(partial, tokenizer=tokenizer, data=data, count=count)


def _write_shards(folder: Path, examples) -> int:
    shards, writer, count = 0, None, 0
    for ids, captions in examples:
        if count % SHARD_SIZE == 0:
            if writer:
                _check(writer.close)
            writer = _check(ArrayRecordWriter, str(folder / f"{shards:05d}.array_record"), "group_size:1")
            shards += 1
        _check(writer.write, msgpack.packb((np.asarray(ids, "<u4").tobytes(), *captions)))
        count += 1
    if not writer:
        raise UserError(f"no pictures to encode into {folder}; the split is empty")
    _check(writer.close)
    return count


def _check(call, *args):
    """The result of a call of ArrayRecordWriter, which raises RuntimeError when the disk is full."""
    try:
        return call(*args)
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise UserError(
            f"tokens cannot be written: {line}; make room or mend the disk, and the same command goes on"
        ) from None


def stale(folder: str | Path, *, tokenizer: str, data: str) -> str:
    """Why a split has to be encoded, in words; "" where its tokens are there and of this tokenizer and this data.

    Args:
      folder: of the split.
      tokenizer, data: see `write_tokens`.

    Raises:
      UserError: the manifest is corrupt.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return MISSING
    manifest = _manifest(folder, lambda: files.read_json(folder / files.MANIFEST))
    return files.stamped_otherwise(manifest, {"tokenizer": tokenizer, "data": data})


def _manifest(folder: Path, read) -> dict:
    try:
        return read()
    except files.CorruptError as error:
        raise UserError(f"tokens: {error}; delete {folder} to encode the pictures again") from None


class Tokens:
    """The tokens of a split, opened and verified.

    Attributes:
      count: examples.
      data: fingerprint of the images and captions that they were made of.
      checksum: of the manifest, so another one for other tokens.
    """

    def __init__(self, folder: str | Path, *, tokenizer: str, data: str):
        """Open what `write_tokens` wrote, after comparing its stamp and, once a process, its checksums.

        Raises:
          UserError: tokens of another tokenizer or of other data, or a corrupt or missing shard.
        """
        folder = Path(folder)
        manifest = _manifest(folder, lambda: files.verify_manifest(folder, once=True))
        if reason := stale(folder, tokenizer=tokenizer, data=data):
            raise UserError(f"tokens in {folder} are {reason}; the same command encodes them again")
        self.data = data
        self.count, self.checksum = manifest["count"], files.sha256_of(folder / files.MANIFEST)
        shards = [str(folder / name) for name in sorted(manifest["files"])]
        import grain  # a second; who samples reads no tokens

        self._source = grain.sources.ArrayRecordDataSource(shards)
        for first in range(0, self.count, SHARD_SIZE):
            self._source[first]  # opens the file: so it can be read on when another process replaces the folder

    def dataset(self):
        """A `grain.MapDataset` of `{"ids": int32 [N], "captions": list of str}`."""
        import grain

        return grain.MapDataset.source(self._source).map(_unpack)

    def ids(self) -> Iterator[np.ndarray]:
        """All ids in order, int32 [up to CHUNK, N] at a time."""
        return (np.stack([row["ids"] for row in rows]) for rows in self._chunks())

    def captions(self) -> Iterator[str]:
        """All captions in order."""
        return (caption for rows in self._chunks() for row in rows for caption in row["captions"])

    def _chunks(self) -> Iterator[list[dict]]:
        for first in range(0, self.count, CHUNK):
            records = self._source.__getitems__(range(first, min(first + CHUNK, self.count)))
            yield [_unpack(record) for record in records]


def _unpack(record: bytes) -> dict:
    ids, *captions = msgpack.unpackb(record)
    return {"ids": np.frombuffer(ids, "<u4").astype(np.int32), "captions": captions}
