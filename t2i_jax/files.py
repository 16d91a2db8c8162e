"""Files that are there whole or not at all, and that say when they are damaged."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from t2i_jax.errors import UserError

MANIFEST = "digests.json"


class DamagedError(UserError):
    """A file is missing, or is not what was written."""


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, and stays there when the machine dies.

    Raises:
      OSError: names the file; the disk is full or read-only, and what stood under the name before still stands.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        with suppress(OSError):  # a cut file would keep a full disk full
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring names that were made, moved or removed in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, content: dict) -> None:
    """Write a JSON object atomically, with the sha256 of all else in it as its field `sha256`."""
    sealed = {**content, "sha256": _digest_of(content)}
    write_atomically(path, json.dumps(sealed, indent=1, ensure_ascii=False).encode())


def read_json(path: str | Path) -> dict:
    """What `write_json` wrote.

    Raises:
      DamagedError: the file is missing, is no JSON object, or its digest does not fit.
      OSError: it cannot be read just now, which is no fault of its content.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        expected = content.pop("sha256")
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    if _digest_of(content) != expected:
        raise DamagedError(f"{path} is damaged (its digest does not fit)")
    return content


def _digest_of(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: str | Path, **content) -> None:
    """Write `digests.json` into a folder: the sha256 of every file below it, and what else is given.

    The files are synced first, so that they are on the disk when the manifest says so. A manifest that a killed
    process left, whole or not, is replaced.
    """
    folder = Path(folder)
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(MANIFEST)):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sums[str(path.relative_to(folder))] = sha256_of(path)
    for sub in sorted(p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(sub)
    write_json(folder / MANIFEST, {**content, "files": sums})


def check_sealed(folder: str | Path) -> dict:
    """Compare a folder with its manifest.

    Returns:
      The manifest: `files` and what else was given to `seal`.

    Raises:
      DamagedError: names the first file that is missing or damaged.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest.get("files"), dict):
        raise DamagedError(f"{folder / MANIFEST} is damaged (it lists no files)")
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path} is missing")
        if sha256_of(path) != expected:
            raise DamagedError(f"{path} is damaged (its digest does not fit)")
    return manifest


@contextmanager
def lock(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder's `lock`, which the kernel frees when its owner dies, however it dies.

    Args:
      folder: an existing folder.
      wait: until the owner is done, instead of raising.

    Raises:
      UserError: another process holds it.
    """
    path = Path(folder) / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(
                f"{folder} is in use by another training (process {owner}); wait for it, stop it,"
                " or choose another --workdir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
