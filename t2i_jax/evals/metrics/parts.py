"""Features as they come, kept on the disk until their measurement is written: one that was stopped goes on."""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from t2i_jax import files


class Parts:
    """Features of one set of pictures, a file for each batch of them.

    Args:
      folder: where they lie; it is made when the first is written.
      stamp: of JSON's kinds, all that determines them. Those of another stamp are no parts, and are written over.
    """

    def __init__(self, folder: str | Path, stamp: dict):
        self._folder, self._stamp = Path(folder), json.dumps(stamp, sort_keys=True).encode()

    def read(self) -> Iterator[Float32[np.ndarray, "B D"]]:
        """Those from the first on that are there and whole."""
        for number in itertools.count():
            path = self._path(number)
            content = path.read_bytes() if path.exists() else b""
            digest, features = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
            if digest != self._digest(number, features):
                return
            yield np.load(io.BytesIO(features), allow_pickle=False)

    def write(self, number: int, features: Float32[np.ndarray, "B D"]) -> None:
        """Keep the batch of that number."""
        content = io.BytesIO()
        np.save(content, features, allow_pickle=False)
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = self._digest(number, content.getvalue())
        files.write_atomically(self._path(number), digest + content.getvalue())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}"

    def _digest(self, number: int, features: bytes) -> bytes:
        return hashlib.sha256(b"%d\n%s\n%s" % (number, self._stamp, features)).digest()


def remove(folder: Path) -> None:
    """Take away what was kept below a folder, and the folders that are empty then; nothing else that lies there."""
    for own in folder.glob("*/"):
        for path in own.glob("[0-9]" * 8):
            path.unlink()
        with suppress(OSError):
            own.rmdir()
    with suppress(OSError):
        folder.rmdir()
