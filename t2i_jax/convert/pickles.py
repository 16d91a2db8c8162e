"""Pickled torch modules, state dicts and checkpoints of PyTorch Lightning, read without torch and without trust.

Beside numbers, strings and containers they can build tensors and inert stand-ins for the modules that their reader
names (`unpickling.py`). Both formats of `torch.save` are read: the zip archive (since torch 1.6) and the stream of
pickles before it.
"""

import io
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from t2i_jax.convert import unpickling
from t2i_jax.convert.unpickling import RefusedError

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the older format
DEPTH = 20  # modules inside each other
LIGHTNING = "pytorch_lightning"  # whose objects in its checkpoints are passed over
STORAGES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What torch.save writes more than bare data.
OPCODES = unpickling.OPCODES | {
    "POP", "POP_MARK", "LONG1", "BINFLOAT", "EMPTY_LIST", "APPEND", "APPENDS", "NEWOBJ", "BINPERSID",
}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor whose numbers have not been read yet: those of storage `key` from `offset` on.

    They lie there axis by axis in `order`: a transposed matrix is saved with its columns first.
    """

    key: str
    offset: int
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def array(self, numbers: dict[str, np.ndarray]) -> np.ndarray:
        flat = numbers[self.key][self.offset : self.offset + math.prod(self.shape)]
        return flat.reshape([self.shape[axis] for axis in self.order]).transpose(np.argsort(self.order))


class OrderedDict(dict):
    """Stands for collections.OrderedDict; what a state dict says beside its tensors is let go."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class Module:
    """Stands for an instance of a module class; `state` is what that would have held."""

    __slots__ = ("state",)

    def __setstate__(self, state):
        if type(state) is not dict:
            raise RefusedError(f"the state of a {type(self).__name__} is a {type(state).__name__}, no dict")
        self.state = state


class PassedOver:
    """Stands for what a checkpoint holds beside tensors."""

    __slots__ = ()

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


def read_module(path: str | Path, classes: set[str]) -> tuple[str, dict[str, np.ndarray]]:
    """The tensors of a module that `torch.save` wrote whole.

    Args:
      path: the file.
      classes: dotted names of the module classes that may occur in it.

    Returns:
      The dotted name of the module's class, and its parameters and buffers, as `state_dict` names them; read-only.

    Raises:
      UserError: there is no such file, it is damaged or of another kind, or it holds what may not occur.
    """

    def unpack(root, numbers):
        if not isinstance(root, Module):
            raise RefusedError(f"holds a {type(root).__name__}, no module")
        return type(root).__name__, dict(_tensors(root, numbers, "", set()))

    return _read(path, classes, unpack)


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote, by name, as `torch.load(weights_only=True)` has them.

    Raises:
      UserError: see `read_module`.
    """
    return _read(path, set(), _state)


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of the `state_dict` in a checkpoint of PyTorch Lightning, or of a bare state dict, by name.

    Raises:
      UserError: see `read_module`.
    """

    def unpack(root, numbers):
        inside = isinstance(root, dict) and root.get("state_dict")
        return _state(inside if isinstance(inside, dict) else root, numbers)

    return _read(path, {LIGHTNING}, unpack)


def _state(root, numbers):
    """The arrays of a state dict."""
    if not isinstance(root, dict) or not root:
        raise RefusedError(f"holds a {type(root).__name__}, no state dict of tensors")
    for name, value in root.items():
        if type(name) is not str or not isinstance(value, Tensor):
            raise RefusedError(f"holds a {type(value).__name__} among the tensors of a state dict")
    return {name: tensor.array(numbers) for name, tensor in root.items()}


def _read(path, classes, unpack):
    """`unpack(root, arrays of the storages)` of a file."""

    def read(raw):
        if not raw.startswith((b"PK", b"\x80")):
            raise RefusedError("was not written by torch.save")
        return unpack(*(_read_zip if raw.startswith(b"PK") else _read_stream)(raw, classes))

    return unpickling.read(path, "torch.save", read)


def _read_zip(raw, classes):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        infos = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise RefusedError("is compressed; torch.save compresses nothing")
        if sum(info.file_size for info in infos) > len(raw):
            raise RefusedError("declares more bytes than it has")
        contents = {info.filename.partition("/")[2]: archive.read(info) for info in infos}  # against their CRCs
    if "data.pkl" not in contents:
        raise RefusedError("has no data.pkl: torch.save did not write it")
    if contents.get("byteorder", b"little") != b"little":
        raise RefusedError("was written on a big-endian machine, which is not supported")
    root, sizes = _unpickle(io.BytesIO(contents["data.pkl"]), classes)
    return root, _checked({key: contents.get(f"data/{key}", b"") for key in sizes}, sizes)


def _read_stream(raw, classes):
    stream = io.BytesIO(raw)
    magic, version, system = (_unpickle(stream, set())[0] for _ in range(3))
    if magic != MAGIC or version != VERSION or not isinstance(system, dict):
        raise RefusedError("was not written by torch.save")
    if system.get("little_endian") is not True:
        raise RefusedError("was written on a big-endian machine, which is not supported")
    root, sizes = _unpickle(stream, classes)
    keys = _unpickle(stream, set())[0]
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(sizes):
        raise RefusedError("does not list the storages that its tensors lie in")
    contents = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if count != sizes[key][1]:
            raise RefusedError(f"has {count} numbers in storage {key!r}, not {sizes[key][1]}, or ends early")
        contents[key] = stream.read(count * np.dtype(sizes[key][0]).itemsize)
    if stream.read(1):
        raise RefusedError("goes on after its last storage")
    return root, _checked(contents, sizes)


def _checked(contents, sizes):
    """Arrays of the storages; each must hold as many numbers as its tensors were told."""
    numbers = {}
    for key, (dtype, count) in sizes.items():
        size = count * np.dtype(dtype).itemsize
        if len(contents[key]) != size:
            raise RefusedError(f"has {len(contents[key])} bytes in storage {key!r}, not {size}")
        numbers[key] = np.frombuffer(contents[key], np.dtype(dtype).newbyteorder("<"))
    return numbers


def _unpickle(stream, classes):
    """The next object of a stream, and `{key: (type, count)}` of the storages that it names."""
    result, loader = unpickling.load(stream, OPCODES, "torch.save", _Unpickler, classes)
    return result, loader.sizes


class _Unpickler(unpickling.Unpickler):
    def __init__(self, file, classes):
        allowed = {
            "__builtin__.set": lambda *_: None,  # of names of buffers; protocol 2 has the names of Python 2
            "collections.OrderedDict": lambda: OrderedDict(),
            "torch.device": lambda *_: None,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch._utils._rebuild_tensor_v2": lambda *arguments: _tensor(*arguments),
        }
        allowed |= {name: type(name, (Module,), {"__slots__": ()}) for name in classes}
        super().__init__(file, allowed | {f"torch.{name}": name for name in STORAGES})
        self.sizes = {}
        self.passed_over = type("PassedOver", (PassedOver,), {"__slots__": ()}) if LIGHTNING in classes else None

    def find_class(self, module, name):
        """See `Unpickler.find_class`; everything of Lightning's is one inert class."""
        if self.passed_over and module.partition(".")[0] == LIGHTNING:
            return self.passed_over
        return super().find_class(module, name)

    def is_key(self, key):
        """In a checkpoint numbers, of an optimizer's parameters, and classes, of callbacks, are keys too."""
        more = self.passed_over is not None and (type(key) is int or key is self.passed_over)
        return more or super().is_key(key)

    def persistent_load(self, identity):
        """A class, in the older format (its source comes along and is left alone), or a storage."""
        match identity:
            case ("module", type() as cls, *_) if issubclass(cls, Module):
                return cls
            case ("storage", str(kind), str(key), _, int(count), *view) if kind in STORAGES and count >= 0:
                if view not in ([], [None]):
                    raise RefusedError("holds a storage that is a view of another")
                entry = STORAGES[kind], count
                if self.sizes.setdefault(key, entry) != entry:
                    raise RefusedError(f"names storage {key!r} twice, with different sizes")
                return (*entry, key)
        raise RefusedError("refers to something outside itself that is no storage")


def _tensor(storage, offset, shape, strides, *_):
    """torch._utils._rebuild_tensor_v2, of tensors without gaps: any other could be larger than what it lies in."""
    _, count, key = storage
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if type(key) is not str or len(shape) > 8 or len(shape) != len(strides) or not whole:
        raise RefusedError("holds a tensor whose shape is no shape")
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    step = 1
    for axis in reversed(order):
        if shape[axis] != 1 and strides[axis] != step:
            raise RefusedError(f"holds a tensor of shape {shape} that does not lie whole in storage {key!r}")
        step *= shape[axis]
    if offset + math.prod(shape) > count:
        raise RefusedError(f"holds a tensor of shape {shape} that does not lie whole in storage {key!r}")
    return Tensor(key, offset, tuple(shape), tuple(order))


def _tensors(module, numbers, prefix, seen):
    """(name, array) of all tensors in a module."""
    if id(module) in seen:
        raise RefusedError(f"holds the module {prefix[:120]!r} inside itself, or twice")
    if prefix.count(".") > DEPTH:
        raise RefusedError(f"holds modules too deep inside each other, {prefix[:120]!r}")
    seen.add(id(module))
    state = getattr(module, "state", {})
    for field, kind in (("_parameters", Tensor), ("_buffers", Tensor), ("_modules", Module)):
        part = state.get(field)
        if not isinstance(part, dict):
            raise RefusedError(f"holds a {type(module).__name__} without {field}")
        for name, value in part.items():
            if value is None:
                continue
            if not isinstance(value, kind):
                raise RefusedError(f"holds a {type(value).__name__} among the {field} of {prefix[:120]!r}")
            if kind is Module:
                yield from _tensors(value, numbers, f"{prefix}{name}.", seen)
            else:
                yield f"{prefix}{name}", value.array(numbers)
