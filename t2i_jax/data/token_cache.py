"""Token shards: what a tokenizer made of a split, once, stamped with the tokenizer's digest."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import grain
import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from t2i_jax.errors import UserError

STAMP = "stamp.json"
SHARD_SIZE = 16384  # examples a shard


def write_tokens(folder: str | Path, examples: Iterable[tuple[np.ndarray, str]], digest: str) -> None:
    """Write shards and their stamp; the folder appears under its name only when all of it is written.

    Args:
      folder: where the shards go; an unfinished attempt beside it is replaced.
      examples: pairs of ids [N] and caption.
      digest: of the tokenizer that made the ids.

    Raises:
      UserError: there is no example.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shards, writer, count = [], None, 0
    for ids, caption in examples:
        if count % SHARD_SIZE == 0:
            if writer:
                writer.close()
            shards.append(partial / f"{len(shards):05d}.array_record")
            writer = ArrayRecordWriter(str(shards[-1]), "group_size:1")
        writer.write(msgpack.packb((np.asarray(ids, "<u4").tobytes(), caption)))
        count += 1
    if not writer:
        raise UserError(f"no pictures to encode into {folder}; the split is empty")
    writer.close()
    sums = {shard.name: _sha256(shard) for shard in shards}
    stamp = {"tokenizer": digest, "count": count, "shards": sums}
    (partial / STAMP).write_text(json.dumps(stamp, indent=1))
    partial.rename(folder)


def open_tokens(folder: str | Path, digest: str) -> grain.MapDataset:
    """Open shards after checking whose they are and that they are whole.

    Args:
      folder: written by `write_tokens`.
      digest: of the tokenizer whose ids are expected.

    Returns:
      A dataset of `{"ids": int32 [N], "caption": str}`.

    Raises:
      UserError: another tokenizer's shards, or a damaged or missing one.
    """
    folder = Path(folder)
    way_out = f"delete {folder} to encode the pictures again"
    try:
        stamp = json.loads((folder / STAMP).read_text())
        made_by, shards = stamp["tokenizer"], dict(stamp["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / STAMP} cannot be read; {way_out}") from None
    if made_by != digest:
        raise UserError(
            f"tokens in {folder} were made by tokenizer {made_by[:12]}, this run's is {digest[:12]}; {way_out}"
        )
    for name, expected in shards.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise UserError(f"token shard {path} is missing or damaged; {way_out}")
    source = grain.sources.ArrayRecordDataSource([str(folder / name) for name in shards])
    return grain.MapDataset.source(source).map(_unpack)


def _unpack(record: bytes) -> dict:
    ids, caption = msgpack.unpackb(record)
    return {"ids": np.frombuffer(ids, "<u4").astype(np.int32), "caption": caption}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
