"""What says the captions of loose files: a list of captions, texts beside the pictures, or names of sub-folders."""

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from t2i_jax.data.entry import CAPTION_KEYS, TEXT_ALONE, clean, first_of
from t2i_jax.data.skipped import Names, add
from t2i_jax.errors import UserError, one_line

LISTS = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
FILE_KEYS = ("file", "file_name")


def captions_of(loose: Mapping[str, Path], root: str | Path, skipped: Names) -> dict[str, list[str]]:
    """Captions of loose files, by the first of the three that there is.

    Args:
      loose: files by their names within the folder.
      root: the folder, for messages.
      skipped: gets rows and texts without a picture.

    Returns:
      Captions by the names of what may be pictures; [] where there are none.

    Raises:
      UserError: there are two lists, or a file of captions cannot be read.
    """
    lists = [name for name in LISTS if name in loose]
    if len(lists) > 1:
        raise UserError(f"{root} has {' and '.join(lists)}; keep one of them")
    inner = [name for name in loose if "/" in name and PurePosixPath(name).name in LISTS]
    if inner and not lists:
        raise UserError(f"{root} has its captions in {inner[0]}; name the folder {Path(root, inner[0]).parent}")
    if lists:
        listed = _listed(loose[lists[0]], loose, skipped)
        return {name: listed.get(name, []) for name in loose if name != lists[0]}
    texts = {_stem(name): name for name in loose if name.lower().endswith(".txt")}
    pictures = [name for name in loose if name not in texts.values()]
    used = {name: texts[_stem(name)] for name in pictures if _stem(name) in texts}
    if any(PurePosixPath(name).suffix.lower() in Image.registered_extensions() for name in used):
        for name in sorted(set(texts.values()) - set(used.values())):
            add(skipped, TEXT_ALONE, name)
        beside = {name: clean(_read_text(loose[text]).splitlines()) for name, text in used.items()}
        return {name: beside.get(name, []) for name in pictures}
    return {name: clean(PurePosixPath(name).parent.name.replace("_", " ")) for name in loose}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _listed(file: Path, loose: Mapping[str, Path], skipped: Names) -> dict[str, list[str]]:
    """Captions by picture, from the rows of a file."""
    captions: dict[str, list[str]] = {}
    names = {unicodedata.normalize("NFC", name): name for name in loose}  # macOS takes letters apart
    for number, row in _csv_rows(file) if file.suffix == ".csv" else _json_rows(file):
        place = f"{file.name}, line {number}"
        name, texts = (first_of(row, keys) if isinstance(row, dict) else None for keys in (FILE_KEYS, CAPTION_KEYS))
        if not (isinstance(name, str) and clean(texts)):
            add(skipped, "row without a file and a caption", place)
            continue
        path = os.path.normpath(name.replace("\\", "/"))
        if os.path.isabs(path) or path.startswith(".."):
            add(skipped, "row that names a file outside", place)
        elif (found := names.get(unicodedata.normalize("NFC", path))) is None:
            add(skipped, "row that names a missing file", place)
        else:
            captions[found] = clean([*captions.get(found, []), *clean(texts)])
    return captions


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_read_text(file).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _csv_rows(file: Path) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(_read_text(file)), skipinitialspace=True)
    try:
        reader.fieldnames = columns = [column.strip().lower() for column in reader.fieldnames or []]
        for keys in (FILE_KEYS, CAPTION_KEYS):
            if not set(keys) & set(columns):
                asked, found = " or ".join(keys), ", ".join(map(repr, columns)) or "none"
                raise UserError(
                    f"{file} has no column {asked}, but {found}; name it so, with commas between columns"
                )
        for row in reader:  # one of more cells than columns lacks quotes: its caption would lose its end
            yield reader.line_num, None if None in row else row
    except csv.Error as error:
        raise UserError(f"{file}, after line {reader.line_num}: {one_line(error)}; write it as CSV") from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#x} at {error.start}"
        raise UserError(f"{file} is not UTF-8 ({byte}); save it as UTF-8") from None
