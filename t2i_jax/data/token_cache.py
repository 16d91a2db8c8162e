"""Token shards: what a tokenizer made of a split, once, stamped with the tokenizer's digest."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from t2i_jax import files
from t2i_jax.errors import UserError

SHARD_SIZE = 16384  # examples a shard


def write_tokens(folder: str | Path, examples: Iterable[tuple[np.ndarray, list[str]]], digest: str) -> None:
    """Write shards and their manifest; the folder appears under its name only when all of it is written.

    Args:
      folder: where the shards go; an unfinished attempt beside it is replaced.
      examples: pairs of ids [N] and captions.
      digest: of the tokenizer that made the ids.

    Raises:
      UserError: there is no example, or a shard cannot be written.
      OSError: the disk is full or read-only.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        count = _write_shards(partial, examples)
        files.seal(partial, tokenizer=digest, count=count)
    except (UserError, OSError):
        shutil.rmtree(partial, ignore_errors=True)  # it would keep a full disk full
        raise
    partial.rename(folder)
    files.sync_folder(folder.parent)


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


def open_tokens(folder: str | Path, digest: str) -> "grain.MapDataset":
    """Open shards after checking whose they are and that they are whole.

    Args:
      folder: written by `write_tokens`.
      digest: of the tokenizer whose ids are expected.

    Returns:
      A dataset of `{"ids": int32 [N], "captions": list of str}`.

    Raises:
      UserError: another tokenizer's shards, or a damaged or missing one.
    """
    import grain  # a second; who samples reads no tokens

    return grain.MapDataset.source(_source(folder, digest)).map(_unpack)


def read_tokens(folder: str | Path, digest: str) -> tuple[np.ndarray, list[list[str]]]:
    """All ids, int32 [P, N], and captions at once: in a tenth of the time that a dataset takes one by one.

    Args and errors are those of `open_tokens`.
    """
    source = _source(folder, digest)
    rows = [_unpack(record) for record in source.__getitems__(range(len(source)))]
    return np.stack([row["ids"] for row in rows]), [row["captions"] for row in rows]


def _source(folder: str | Path, digest: str) -> "grain.sources.ArrayRecordDataSource":
    folder = Path(folder)
    way_out = f"delete {folder} to encode the pictures again"
    try:
        manifest = files.check_sealed(folder)
    except files.DamagedError as error:
        raise UserError(f"tokens: {error}; {way_out}") from None
    made_by = str(manifest.get("tokenizer"))
    if made_by != digest:
        raise UserError(
            f"tokens in {folder} were made by tokenizer {made_by[:12]}, this run's is {digest[:12]}; {way_out}"
        )
    import grain

    return grain.sources.ArrayRecordDataSource([str(folder / name) for name in manifest["files"]])


def _unpack(record: bytes) -> dict:
    ids, *captions = msgpack.unpackb(record)
    return {"ids": np.frombuffer(ids, "<u4").astype(np.int32), "captions": captions}
