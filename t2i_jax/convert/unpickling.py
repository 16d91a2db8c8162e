"""Pickles read without trust, whoever wrote them.

A pickle is a program: loading one runs whatever its author wrote. Here it can build numbers, strings and
containers, and call the few functions that its reader gives for the names in it; nothing else.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, ClassVar

from t2i_jax.errors import UserError

# What is in pickles of protocol 2 and 3 that hold data. Left out: opcodes that reach the extension registry, build
# instances in other ways, or reserve memory before they read (BYTEARRAY8).
OPCODES = {
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINUNICODE",
    "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "BINGET", "BINPUT",
    "LONG_BINGET", "LONG_BINPUT", "GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class RefusedError(Exception):
    """Why a pickle is not read; `read` adds the file."""


def read(path: str | Path, writer: str, unpack: Callable[[bytes], Any]) -> Any:
    """`unpack(bytes of a file)`; whatever the file holds, an error is one line.

    Args:
      path: the file.
      writer: what writes such files, in errors.
      unpack: raises RefusedError, or anything.

    Raises:
      UserError: there is no such file, it is damaged or of another kind, or it holds what may not occur.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a file that {writer} wrote") from None
    try:
        return unpack(raw)
    except RefusedError as error:
        reason = str(error)
    except Exception as error:  # the unpickler and zipfile raise anything on bytes that are no file of theirs
        reason = f"is damaged, or {writer} did not write it ({type(error).__name__}: {str(error)[:120]})"
    raise UserError(f"{path} {reason}; nothing in it was run, and nothing of it is used")


def load(stream: io.BytesIO, opcodes: Set[str], writer: str, unpickler: "type[Unpickler]", *arguments) -> tuple:
    """The next object of a stream, and the `unpickler(file, *arguments)` that built it.

    Raises:
      RefusedError: an opcode is none of `opcodes`, or would fill the memory.
    """
    start = stream.tell()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name not in opcodes:
            raise RefusedError(f"holds the pickle opcode {opcode.name}, which {writer} does not write")
        # The unpickler makes room up to this place at once: one far away would fill the memory.
        if opcode.name == "LONG_BINPUT" and argument > number:
            raise RefusedError(f"keeps an object at place {argument}, before {number} are there")
    end = stream.tell()
    loader = unpickler(io.BytesIO(stream.getbuffer()[start:end]), *arguments)
    result = loader.load()
    stream.seek(end)
    return result, loader


class Unpickler(pickle._Unpickler):
    """Builds what `allowed` has. All callables that a pickle gets hold of are made for this one load.

    Python's own unpickler, not the faster one in C: only there can it be seen to that keys of dicts are strings.
    Hashing tuples inside tuples, shared or a million deep, would take for ever or crash the process.

    Attributes:
      allowed: by dotted name, what stands for what a pickle names.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO, allowed: dict[str, Any]):
        super().__init__(file, encoding="utf-8")
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; see `pickle.Unpickler`."""
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise RefusedError(f"asks for {full[:120]!r}, which may not occur in it")
        return self.allowed[full]

    def _load_item(self):
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def _load_items(self):
        self._check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEM[0]], dispatch[pickle.SETITEMS[0]] = _load_item, _load_items

    def is_key(self, key: Any) -> bool:
        """Whether a dict may have such a key."""
        return type(key) is str

    def _check_keys(self, keys):
        if not all(map(self.is_key, keys)):
            raise RefusedError("holds a dict with a key that is no string")
