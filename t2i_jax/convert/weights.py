"""Released weights of language models: the three files that the hub has them in, read into torch's names."""

import json
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
)  # looked for in this order
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}  # Flax -> torch
ARRAY = 1  # the msgpack extension that Flax writes arrays as


def find(name_or_folder: str | Path) -> Path:
    """Where the weights lie on this machine, once this returns; see `hub.find`.

    Raises:
      UserError: there are none, or they cannot be fetched, or a folder has them in several files.
    """
    try:
        return hub.find(name_or_folder, FILES)
    except UserError:
        for index in Path(name_or_folder).glob("*.index.json"):
            raise UserError(
                f"{index} is of weights in several files; save them as one, with a larger max_shard_size of"
                " save_pretrained"
            ) from None
        raise


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a file of weights, by torch's names and of torch's shapes. Nothing in the file is run.

    Raises:
      UserError: the file is damaged, cut short, or of another kind.
    """
    readers = {".safetensors": hub.read, ".bin": pickles.read_state, ".msgpack": read_msgpack}
    suffix = Path(path).suffix
    if suffix not in readers:
        raise UserError(f"{path} is no file of weights; name one that ends in {', '.join(readers)}")
    return readers[suffix](path)


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
