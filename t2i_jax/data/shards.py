"""Pictures with captions in one file: a webdataset tar, a parquet file. Nothing is unpacked."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from t2i_jax.data import tars
from t2i_jax.data.entry import (
    CAPTION_KEYS,
    MAX_BYTES,
    TEXT_ALONE,
    TOO_LARGE,
    UNCAPTIONED,
    Entry,
    clean,
    first_of,
)
from t2i_jax.data.images import Unreadable
from t2i_jax.data.skipped import Names, add
from t2i_jax.errors import UserError, one_line

PICTURE_KEYS = ("image", "picture", "jpg", "png", "webp")  # columns of a parquet file
TEXTS = (".txt", ".json")  # members of a tar that hold captions
ROWS = 64  # of a parquet file that are held at a time


def tar_entries(file: Path, name: str, skipped: Names) -> Iterator[Entry]:
    """Members with one stem are one example: a picture, and a `.txt` or a `.json` with its captions.

    Links in a tar are not followed, and its names are not used as paths.

    Args:
      file: the tar, not compressed.
      name: of the file, for people.
      skipped: gets, by reason, what is no such example.

    Raises:
      UserError: it is no tar.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            for stem, members in _examples(tar).items():
                others = [suffix for suffix in members if suffix not in TEXTS]
                others.sort(key=lambda suffix: suffix not in Image.registered_extensions())
                place = f"{name}/{stem}{others[0] if others else ''}"
                captions = next(filter(None, (_captions(tar, members.get(suffix)) for suffix in TEXTS)), [])
                if others and captions:
                    yield Entry(place, captions, lambda member=members[others[0]]: _read(tar, member))
                else:
                    add(skipped, UNCAPTIONED if others else TEXT_ALONE, place)
    except Exception as error:  # tarfile raises anything on bytes that are no tar
        raise UserError(f"{file} is cut short or no tar ({one_line(error)}); fetch it again") from None


def _examples(tar: tarfile.TarFile) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Stem -> suffix -> member; a stem ends at the first dot of the name, as in webdataset."""
    examples: dict[str, dict[str, tarfile.TarInfo]] = {}
    members = [member for member in tars.members(tar) if member.isreg() and not member.issparse()]
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # it stops at any header
        raise tarfile.ReadError(f"no end after {len(members)} members")
    for member in members:
        path = PurePosixPath(member.name)
        stem, dot, suffix = path.name.partition(".")
        if stem:  # else it is hidden
            examples.setdefault(str(path.with_name(stem)), {})[dot + suffix.lower()] = member
    return examples


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_BYTES:
        raise Unreadable(TOO_LARGE)
    return tar.extractfile(member).read()


def _captions(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> list[str]:
    if member is None:
        return []
    try:
        text = _read(tar, member).decode("utf-8-sig")
        if member.name.lower().endswith(".txt"):
            return clean(text.splitlines())
        row = json.loads(text)
        return clean(first_of(row, CAPTION_KEYS)) if isinstance(row, dict) else []
    except (ValueError, RecursionError):  # what cannot be read has no captions
        return []


def parquet_entries(file: Path, name: str, skipped: Names) -> Iterator[Entry]:
    """Rows of a column of pictures (bytes, or a struct with `bytes`) and one of captions (texts, or lists of them).

    Args:
      file, name, skipped: see `tar_entries`.

    Raises:
      UserError: it is no parquet file, or has no such columns.
    """
    import pyarrow  # comes with TFDS
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            columns = opened.schema_arrow.names
            picture, caption = (
                next((key for key in keys if key in columns), "") for keys in (PICTURE_KEYS, CAPTION_KEYS)
            )
            if not (picture and caption):
                asked = " and ".join(" or ".join(keys) for keys in (PICTURE_KEYS, CAPTION_KEYS))
                raise UserError(f"{file} has columns {', '.join(columns)}; it needs {asked}")
            batches = opened.iter_batches(ROWS, columns=[picture, caption])
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                content, captions, place = row[picture], clean(row[caption]), f"{name}, row {number}"
                content = content.get("bytes") if isinstance(content, dict) else content
                if isinstance(content, bytes) and len(content) > MAX_BYTES:
                    add(skipped, TOO_LARGE, place)
                elif isinstance(content, bytes) and captions:
                    yield Entry(place, captions, lambda content=content: content)
                else:
                    reason = UNCAPTIONED if isinstance(content, bytes) else "without bytes of a picture"
                    add(skipped, reason, place)
    except UserError:
        raise
    except Exception as error:  # arrow's own, and what Python makes of its values, such as texts of no UTF-8
        raise UserError(f"{file} cannot be read as parquet ({one_line(error)}); fetch it again") from None


READERS = {".tar": tar_entries, ".parquet": parquet_entries}
"""By suffix."""
