"""Files as `torch.save` writes them, of whole modules, made without torch; and others that only look like them."""

import io
import struct
import zipfile

import numpy as np
import pytest

from t2i_jax.convert.pickles import read_module
from t2i_jax.errors import UserError

KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage"}


class Op(bytes):
    """Pickle opcodes, taken as they are."""


def name(dotted: str) -> Op:
    """A global: the last part is its name, the rest its module."""
    module, _, own = dotted.rpartition(".")
    return Op(f"c{module}\n{own}\n".encode())


def call(function: Op, *arguments) -> Op:
    return Op(function + dump(arguments) + b"R")


def instance(of: Op, state) -> Op:
    return Op(of + b")\x81" + dump(state) + b"b")


def persistent(identity) -> Op:
    return Op(dump(identity) + b"Q")


def dump(value) -> bytes:
    """Opcodes of protocol 2 that build a value."""
    match value:
        case Op():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(dump, value)) + b"t"
        case list():
            return b"](" + b"".join(map(dump, value)) + b"e"
        case dict():
            return b"}(" + b"".join(dump(key) + dump(own) for key, own in value.items()) + b"u"
    raise TypeError(value)


def pickled(value) -> bytes:
    return b"\x80\x02" + dump(value) + b"."


def storage(key: str, count: int, kind: str = "FloatStorage", *, view=()) -> Op:
    return persistent(("storage", name(f"torch.{kind}"), key, "cuda:0", count, *view))


def tensor(stored: Op, shape, *, offset=0, strides=None) -> Op:
    steps = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))) if strides is None else strides
    arguments = stored, offset, tuple(shape), steps, False, call(name("collections.OrderedDict"))
    rebuilt = call(name("torch._utils._rebuild_tensor_v2"), *arguments)
    return call(name("torch._utils._rebuild_parameter"), rebuilt, True, call(name("collections.OrderedDict")))


def module(of: Op, parameters=None, modules=None, **more) -> Op:
    """An instance of a module class, with some of what torch keeps in one."""
    state = {"training": True, "device": call(name("torch.device"), "cpu"), "post_gain": 1 / 64}
    state |= {"_parameters": parameters or {}, "_buffers": {}, "_modules": modules or {}}
    state["_non_persistent_buffers_set"] = call(name("__builtin__.set"), [])
    return instance(of, state | more)


def tree(of: str, tensors: dict[str, np.ndarray], *, old: bool) -> Op:
    """A module of class `of`, with Sequentials below it, that holds tensors under their dotted names."""
    inner = "torch.nn.modules.container.Sequential"
    parameters, below = {}, {}
    for dotted, array in tensors.items():
        first, _, rest = dotted.partition(".")
        if rest:
            below.setdefault(first, {})[rest] = array
        else:
            view = [None] if old else []
            kind, key = KINDS[str(array.dtype)], key_of(array)
            parameters[first] = tensor(storage(key, array.size, kind, view=view), array.shape)
    return module(name(of), parameters, {first: tree(inner, own, old=old) for first, own in below.items()})


def key_of(array: np.ndarray) -> str:
    return str(id(array))


def zipped(root, storages: dict[str, bytes], *, compression=zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """The archive that torch.save writes since 1.6; `root` is a value or a finished pickle."""
    file = io.BytesIO()
    contents = {
        "data.pkl": root if type(root) is bytes else pickled(root),
        "byteorder": b"little",
        "version": b"3\n",
    }
    contents |= {f"data/{key}": raw for key, raw in storages.items()} | entries
    with zipfile.ZipFile(file, "w", compression) as archive:
        for entry, raw in contents.items():
            archive.writestr(f"archive/{entry}", raw)
    return file.getvalue()


def streamed(root, storages: dict[str, bytes], *, width=4, keys=None) -> bytes:
    """The stream of pickles that torch.save wrote before."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [0x1950A86A20F9469CFC6C, 1001, system]
    body = root if type(root) is bytes else pickled(root)
    raw = [struct.pack("<q", len(own) // width) + own for own in storages.values()]
    return b"".join([*map(pickled, head), body, pickled(list(storages) if keys is None else keys), *raw])


def saved(of: str, tensors: dict[str, np.ndarray], *, old: bool) -> bytes:
    """A file of a module of class `of`; the older format takes tensors of one type alone."""
    storages = {key_of(array): array.tobytes() for array in tensors.values()}
    root = tree(of, tensors, old=old)
    if not old:
        return zipped(root, storages)
    return streamed(root, storages, width=next(iter(tensors.values())).itemsize)


def written(folder, raw: bytes):
    path = folder / "encoder.pkl"
    path.write_bytes(raw)
    return path


def refusal_of(folder, raw: bytes, classes: set[str]) -> str:
    """The one line with which a file is refused; nothing may have touched `folder / "canary"`."""
    path = written(folder, raw)
    with pytest.raises(UserError) as caught:
        read_module(path, classes)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "nothing in it was run" in said
    assert "\n" not in said
    assert len(said) < 500
    assert not (folder / "canary").exists()
    return said
