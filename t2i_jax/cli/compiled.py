"""Compiled programs kept on the disk: what one command compiled, the next one loads."""

import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
import zlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"
LIMIT = 1024**3  # bytes; the programs that were not used for longest make room
PROBE = 1 << 16  # bytes that must find room, as jax warns of each program that finds none
UNREAD = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")  # as jax warns


def keep() -> None:
    """Have jax keep compiled programs under XDG_CACHE_HOME or ~/.cache; to be called before jax is imported.

    Where JAX_COMPILATION_CACHE_DIR is set, nothing is changed: jax reads it, and where it is empty keeps nothing. A
    folder that cannot be written is a warning on stderr, and so is a program that is corrupt.
    """
    if FOLDER in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(home) / "t2i_jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe, _lock(folder):
            probe.write(bytes(PROBE))
            probe.flush()
            _remove_halves(folder)
    except OSError as error:
        print(f"warning: compiled programs are not kept: {error}; set {FOLDER} to another folder", file=sys.stderr)
        return
    warnings.showwarning = partial(_show, warnings.showwarning, folder)
    os.environ[FOLDER] = str(folder)
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(LIMIT)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # dozens of small ones take seconds together
    # Some CPUs' programs XLA calls foreign where they were made, a long line each (jax's issue 38445).
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _lock(folder: Path):
    """What jax writes under."""
    import filelock  # longer than all of `t2i --help`

    return filelock.FileLock(folder / ".lockfile", timeout=10)


def _show(show, folder: Path, message, *place, **options) -> None:
    """Show a warning by `show`; where jax cannot read a program that is corrupt, remove it and say so in a line.

    jax compiles it then, but never writes over what is there: each command would warn of it, and compile it again.
    """
    unread = UNREAD.match(str(message))
    try:
        corrupt = [path for path in folder.glob(f"{unread[1]}-*-cache") if _is_corrupt(path)] if unread else []
        with _lock(folder) if corrupt else nullcontext():
            for path in corrupt:
                path.unlink(missing_ok=True)
                path.with_name(path.name.removesuffix("cache") + "atime").unlink(missing_ok=True)
                print(f"warning: {path} is corrupt; that program is compiled again", file=sys.stderr)
    except OSError:  # it stays, and so does jax's own warning
        corrupt = []
    if not corrupt:
        show(message, *place, **options)


def _is_corrupt(path: Path) -> bool:
    try:
        zlib.decompress(path.read_bytes())
    except zlib.error:
        return True
    return False


def _processor() -> str:
    """Names the CPU: a home may be shared, and XLA runs programs of another CPU until an instruction is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return hashlib.sha256("\n".join([platform.machine(), *known]).encode()).hexdigest()[:16]


def _remove_halves(folder: Path) -> None:
    """Remove what a killed process left: jax writes NAME-cache, then NAME-atime, and fails at one alone.

    Whoever calls this holds the lock that jax writes under.
    """
    names = {path.name for path in folder.iterdir()}
    for name in names:
        program, _, kind = name.rpartition("-")
        other = {"cache": "atime", "atime": "cache"}.get(kind)
        if other and f"{program}-{other}" not in names:
            (folder / name).unlink()
