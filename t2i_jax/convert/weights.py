"""Released weights of language models: the files that the hub has them in, read into torch's names."""

import json
import sys
from pathlib import Path

import msgpack
import numpy as np

from t2i_jax.convert import hub, pickles
from t2i_jax.convert.tables import transpose_back
from t2i_jax.errors import UserError, one_line

FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "flax_model.msgpack",
    "model.safetensors.index.json",  # of weights in several files
    "pytorch_model.bin.index.json",
)  # looked for in this order
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}  # Flax -> torch
LONGEST_NAME = 200  # letters; a system may refuse to look for a longer one
ARRAY = 1  # the msgpack extension that Flax writes arrays as


def find(name_or_folder: str | Path) -> Path:
    """Where the weights lie on this machine, once this returns; see `hub.find`.

    Returns:
      Their file, or the index of several files, which are on this machine too.

    Raises:
      UserError: there are none, or they cannot be fetched.
    """
    path = hub.find(name_or_folder, FILES)
    for file in sorted(set(_places(path).values())) if path.suffix == ".json" else ():
        hub.find_beside(name_or_folder, (file,))
    return path


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a file of weights, by torch's names and of torch's shapes. Nothing in the file is run.

    Prefixes that wrappers of torch put before every name are taken off, and that is said.

    Args:
      path: the file, or the index of several.

    Raises:
      UserError: the file is damaged, cut short, or of another kind; or a file is missing that an index names.
    """
    readers = {".safetensors": hub.read, ".bin": pickles.read_state, ".msgpack": read_msgpack}
    path = Path(path)
    if path.suffix == ".json":
        tensors = _read_shards(path, readers)
    elif path.suffix in readers:
        tensors = readers[path.suffix](path)
    else:
        raise UserError(f"{path} is no file of weights; name one that ends in {', '.join(readers)}")
    return _unwrapped(tensors, path)


def _places(index: Path) -> dict[str, str]:
    """Which file beside an index holds which tensor."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index} is damaged (it has no weight_map); fetch it again")
    for file in places.values():
        beside = isinstance(file, str) and Path(file).name == file and len(file) <= LONGEST_NAME
        if not beside or Path(file).suffix not in (".safetensors", ".bin"):
            name = str(file)[:LONGEST_NAME]
            raise UserError(f"{index} names {name!r}, which is no file of weights beside it; fetch it again")
    return places


def _read_shards(index: Path, readers: dict) -> dict[str, np.ndarray]:
    tensors, places = {}, _places(index)
    for file in sorted(set(places.values())):
        if not (shard := index.with_name(file)).is_file():
            raise UserError(f"{index} names {file}, which is not there; fetch it too")
        own = readers[shard.suffix](shard)
        tensors |= {name: own[name] for name in own if places.get(name) == file}
    if missing := sorted(places.keys() - tensors.keys()):
        raise UserError(
            f"{index} names tensor {missing[0]}, which is not in {places[missing[0]]}; fetch both again"
        )
    return tensors


def _unwrapped(tensors: dict[str, np.ndarray], origin: Path) -> dict[str, np.ndarray]:
    prefix = ""
    while found := [wrapper for wrapper in WRAPPERS if all(name.startswith(prefix + wrapper) for name in tensors)]:
        if not tensors:
            break
        prefix += found[0]
    if prefix:
        print(f"{origin}: {prefix!r}, which torch put before every name, is taken off", file=sys.stderr)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def read_config(name_or_folder: str | Path) -> dict:
    """The `config.json` that belongs to weights: it alone has the number of heads.

    Raises:
      UserError: there is none to be had, or it is no JSON object.
    """
    return read_object(hub.find_beside(name_or_folder, ("config.json",)))


def read_object(path: Path) -> dict:
    """The JSON object of a file.

    Raises:
      UserError: it holds none.
    """
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged (it holds no JSON object); fetch it again")
    return config


def read_msgpack(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `flax_model.msgpack`, by torch's names.

    Flax's kernels are the transpose of torch's weights, in dense layers and in GPT-2's "Conv1D" alike; those of
    convolutions have the two axes of their channels behind the places, torch's before.

    Raises:
      UserError: see `read`.
    """
    try:
        tree = msgpack.unpackb(Path(path).read_bytes(), ext_hook=_array)
        tensors = dict(_named(tree["params"] if set(tree) == {"params"} else tree))
    except Exception as error:  # msgpack and numpy raise anything on bytes that are not Flax's
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"{path} is damaged, cut short or no file of Flax weights ({reason}); fetch it again"
        ) from None
    return tensors


def _array(kind, payload):
    if kind != ARRAY:
        raise ValueError(f"it holds an object of kind {kind}, which is no array")
    shape, dtype, content = msgpack.unpackb(payload, raw=True)
    if np.dtype(dtype.decode()).kind not in "fiub" and dtype != b"bfloat16":
        raise ValueError(f"it holds an array of {dtype.decode()[:40]}")
    return np.frombuffer(content, dtype.decode()).reshape(shape)


def _named(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _named(value, f"{prefix}{key}.")
        elif isinstance(value, np.ndarray):
            yield prefix + LEAVES.get(key, key), transpose_back(value) if key == "kernel" else value
        else:
            raise ValueError(f"it holds a {type(value).__name__} as {prefix[:80]}{key}")
