"""What a target of `fuzz.py` is, and how one is registered.

A target gets bytes and an empty folder in memory. It returns, or raises one of the package's own errors; anything
else is a finding, and so is a broken `assert` about what came out. Where a checksum would hide a reader from
mutations, the target writes a fitting one: whoever can change a file can do so, too.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # which write such files without their libraries


class Target(NamedTuple):
    """One reader.

    Attributes:
      seeds: valid files to begin with.
      read: (content, folder) -> None.
      module: of the package, whose lines are counted.
      json: whether contents are JSON, of which values are changed and not only bytes.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], None]
    module: str
    json: bool


TARGETS: dict[str, Target] = {}


def target(name: str, module: str, seeds: Callable[[], list[bytes]], *, json: bool = False) -> Callable:
    """A decorator that registers a target."""
    return lambda read: TARGETS.setdefault(name, Target(seeds, read, module, json)).read


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def dumped(*values) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]
