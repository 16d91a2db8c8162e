"""Pictures with captions as people keep them, in a folder, a webdataset tar or a parquet file, one after the other.

Of a folder, the first of these that it has says what its pictures show:

    captions.jsonl or .csv (or metadata.*)   a file and a caption a row; more rows, or a list, for more captions
    NAME.txt beside a picture                one caption a line
    sub-folders                              their names: `red_apples/1.jpg` shows "red apples"

Tars and parquet files in it are read as well. Nothing outside the folder is read, and nothing hidden. Whether a
file is a picture is decided by its content.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from t2i_jax import files
from t2i_jax.data.entry import MAX_BYTES, TOO_LARGE, UNCAPTIONED, Entry
from t2i_jax.data.images import Unreadable
from t2i_jax.data.layouts import captions_of
from t2i_jax.data.shards import READERS
from t2i_jax.data.skipped import Names, add, in_words
from t2i_jax.errors import UserError

AT_ONCE = 16  # files of pictures that are held at a time
WORKERS = 4  # pictures that are decoded at a time: one of 80 megapixels takes 1.2 GB


class Picture(NamedTuple):
    """All entries of one content.

    Attributes:
      digest: sha256 of the content.
      captions: of all the entries, each once.
      names: of the entries; the first one's content is read.
    """

    digest: str
    captions: list[str]
    names: list[str]

    def is_held_out(self, share: float) -> bool:
        """Whether it belongs to `validation`, as that share does: by its content alone, so no other moves it."""
        return int(self.digest[:16], 16) < share * 2**64


def find_files(path: str | Path, skipped: Names) -> dict[str, Path]:
    """Every file that counts, by its name within the folder, in order.

    Args:
      path: a folder; or a tar or a parquet file, which is found alone.
      skipped: gets what links to the outside, or is no file.

    Raises:
      UserError: there is nothing.
    """
    root = Path(path)
    if root.is_file() and _reader(root.name):
        return {root.name: root}
    if not root.is_dir():
        raise UserError(f"{path} is no folder, .tar or .parquet file; name one that holds pictures with captions")
    found, inside = {}, root.resolve()
    for folder, folders, names in os.walk(root, onerror=_refuse):
        links = [name for name in folders if Path(folder, name).is_symlink()]  # not entered
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(folder, name) for name in (*names, *links) if not name.startswith(".")):
            name = file.relative_to(root).as_posix()
            if not Path(os.path.realpath(file)).is_relative_to(inside):  # `resolve` raises at a link to itself
                add(skipped, "that links to the outside", name)
            elif file.is_file():
                found[name] = file
            else:
                add(skipped, "that is no file", name)
    return dict(sorted(found.items()))


def _refuse(error: OSError):
    raise error


def digest_of(path: str | Path) -> str:
    """sha256 of the names and contents of every file that counts, each read once a process while it stays the same.

    Of a file that is too large to be a picture, such as a film beside them, the size stands for the content.

    Raises:
      UserError: there is nothing.
    """
    made_of = {}
    for name, file in find_files(path, {}).items():
        size = file.stat().st_size
        made_of[name] = files.sha256_once(file) if size <= MAX_BYTES or _reader(name) else size
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def entries(path: str | Path, skipped: Names) -> Iterator[Entry]:
    """Pictures with captions, in the order of their names.

    Args:
      path: see `find_files`.
      skipped: gets, by reason, the names of what is no such entry.

    Raises:
      UserError: there is nothing, or a file of captions, a tar or a parquet file cannot be read.
    """
    found = find_files(path, skipped)
    loose = {name: file for name, file in found.items() if not _reader(name)}
    for name, captions in captions_of(loose, path, skipped).items():
        if captions:
            yield Entry(name, captions, lambda file=loose[name]: _read(file))
        else:
            add(skipped, UNCAPTIONED, name)
    for name in [name for name in found if name not in loose]:
        yield from _reader(name)(found[name], name, skipped)


def _reader(name: str) -> Callable | None:
    """What reads a tar or a parquet file; None for any other."""
    return READERS.get(PurePosixPath(name).suffix.lower())


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_BYTES:
        raise Unreadable(TOO_LARGE)
    return file.read_bytes()


def pictures_of(path: str | Path, skipped: Names) -> dict[str, Picture]:
    """The different pictures, by the name of the first entry of each; every entry is read.

    Args:
      path, skipped: see `entries`.

    Raises:
      UserError: see `entries`; or there is none.
    """
    by_digest: dict[str, Picture] = {}
    for entry in entries(path, skipped):
        try:
            digest = hashlib.sha256(entry.read()).hexdigest()
        except Unreadable as error:
            add(skipped, str(error), entry.name)
            continue
        picture = by_digest.setdefault(digest, Picture(digest, [], []))
        picture.names.append(entry.name)
        picture.captions.extend(caption for caption in entry.captions if caption not in picture.captions)
    if not by_digest:
        raise UserError(f"{path} has no picture with a caption: {in_words(skipped) or 'it is empty'}")
    return {picture.names[0]: picture for picture in by_digest.values()}


def map_pictures(
    path: str | Path, pictures: Mapping[str, Picture], work: Callable[[bytes, Picture], Any]
) -> Iterator[tuple[str, Any]]:
    """`name, work(content, picture)` of pictures in order, several at a time in threads.

    An `Unreadable` that `work` raises stands in place of its result.

    Args:
      path: see `entries`.
      pictures: some of `pictures_of`.
      work: makes what is wanted of a picture.

    Raises:
      UserError: see `entries`.
    """

    def attempt(name, content):
        try:
            return name, work(content, pictures[name])
        except Unreadable as error:
            return name, error

    chosen = (entry for entry in entries(path, {}) if entry.name in pictures)
    with ThreadPoolExecutor(WORKERS) as pool:
        while chunk := [(entry.name, entry.read()) for entry in islice(chosen, AT_ONCE)]:
            yield from pool.map(attempt, *zip(*chunk, strict=True))
