"""Atomic writes, checksums of what was written, and locks between processes; no jax."""

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from t2i_jax.errors import UserError

MANIFEST = "digests.json"
JUST_NOW = 2.0  # seconds in which a file may change twice under one time stamp


class CorruptError(UserError):
    """A file is missing, or is not what was written."""


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all, and stays there when the machine dies.

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
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # a cut file would keep a full disk full
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring names that were made, moved or removed in a folder to the disk."""
    if os.name == "nt":  # Windows opens no folder, and needs none of this
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A folder to write into, `folder`.partial, which takes the place of `folder` when the block is done.

    What a killed process left of another attempt is removed first. After a UserError or OSError nothing is left: it
    would keep a full disk full.

    Raises:
      UserError: there can be no such folder.
    """
    folder = Path(folder)
    partial, old = (folder.with_name(f"{folder.name}.{state}") for state in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None
    try:
        yield partial
    except (UserError, OSError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | Path, content: dict) -> None:
    """Write a JSON object atomically, with the sha256 of all else in it as its field `sha256`."""
    signed = {**content, "sha256": _json_checksum(content)}
    write_atomically(path, json.dumps(signed, indent=1, ensure_ascii=False).encode())


def read_json(path: str | Path) -> dict:
    """What `write_json` wrote.

    Raises:
      CorruptError: the file is missing, is no JSON object, or its checksum does not fit.
      OSError: it cannot be read just now, which is no fault of its content.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        expected = content.pop("sha256")
        found = _json_checksum(content)
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(f"{path} is corrupt ({type(error).__name__}: {error})") from None
    if found != expected:
        raise CorruptError(f"{path} is corrupt (its checksum does not fit)")
    return content


def _json_checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_known: dict[Path, tuple] = {}  # path -> (state, checksum) of files that this process has read


def sha256_once(path: Path) -> str:
    """`sha256_of`, read once a process while the file's time, size and inode stay what they were."""
    path = path.resolve()
    stat = path.stat()
    state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    if path in _known and _known[path][0] == state:
        return _known[path][1]
    started, checksum = time.time(), sha256_of(path)
    if started - stat.st_mtime > JUST_NOW:  # else a later write could leave the same time
        _known[path] = state, checksum
    return checksum


def write_manifest(folder: str | Path, **content) -> None:
    """Write `digests.json` into a folder: the sha256 of every file below it, and what else is given.

    The files are synced first, so that they are on the disk when the manifest says so. A manifest that a killed
    process left, complete or not, is replaced.
    """
    folder = Path(folder)
    checksums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(MANIFEST)):
        with path.open("rb") as file:
            if os.name != "nt":  # where a file that is open for reading cannot be synced
                os.fsync(file.fileno())
        checksums[path.relative_to(folder).as_posix()] = sha256_of(path)
    for sub in sorted(p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(sub)
    write_json(folder / MANIFEST, {**content, "files": checksums})


def verify_manifest(
    folder: str | Path, *, once: bool = False, only: Callable[[str], bool] = lambda name: True
) -> dict:
    """Compare a folder with its manifest.

    Args:
      folder: that `write_manifest` was called for.
      once: read a file once a process, as long as its time, size and inode stay the same.
      only: which of the names are to be compared.

    Returns:
      The manifest: `files` and what else was given to `write_manifest`.

    Raises:
      CorruptError: names the first file that is missing or corrupt.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest.get("files"), dict):
        raise CorruptError(f"{folder / MANIFEST} is corrupt (it lists no files)")
    for name, expected in filter(lambda item: only(item[0]), manifest["files"].items()):
        path = folder / name
        if not os.path.isfile(path):  # nor is what no system could have as a name
            raise CorruptError(f"{path} is missing")
        if (sha256_once if once else sha256_of)(path) != expected:
            raise CorruptError(f"{path} is corrupt (its checksum does not fit)")
    return manifest


def stamped_otherwise(manifest: dict, stamp: dict[str, str]) -> str:
    """What a manifest says of digests that are others now, in words; "" where all are the same.

    Args:
      manifest: of a folder.
      stamp: digests as they are now, by name.
    """
    changes = [
        f"{name} {str(manifest.get(name))[:12]}, now it is {now[:12]}"
        for name, now in stamp.items()
        if manifest.get(name) != now
    ]
    return f"made of {' and '.join(changes)}" if changes else ""


@contextmanager
def lock(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder's `lock`, which the system frees when its owner dies, however it dies.

    Args:
      folder: an existing folder.
      wait: until the owner is done, after a line that names it, instead of raising.

    Raises:
      UserError: another process holds it.
    """
    folder = Path(folder)
    owner = folder / "lock.owner"  # beside the lock: Windows lets nobody read a locked file
    held = filelock.FileLock(folder / "lock")
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        name = (owner.exists() and owner.read_text().strip()) or "unknown"  # a full disk leaves it empty
        if not wait:
            raise UserError(
                f"{folder} is in use by another training (process {name}); wait for it, stop it, or train in"
                " another folder"
            ) from None
        print(f"waiting for {folder}, in use by process {name}", file=sys.stderr)
        held.acquire()
    try:
        with suppress(OSError):  # of a full disk: the lock is held without a name as well
            owner.write_text(f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        held.release()
