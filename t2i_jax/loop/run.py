"""Run folders: a config, weights that vouch for themselves, and what else a stage needs to be used.

config.json          the config the run was started with
model.safetensors    weights to sample with, as of the last checkpoint
scores.json          the last validation scores
text_tokenizer.json  (translators) captions -> ids
tokenizer/           (translators) a copy of the picture tokenizer: the first three of its files
checkpoints/         training state; logs/ and pictures/ for people
"""

import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, FrozenConfigDict

from t2i_jax.errors import UserError

CONFIG, WEIGHTS, SCORES = "config.json", "model.safetensors", "scores.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def start_run(folder: str | Path, config: ConfigDict, *, accept_config_change: bool = False) -> Path:
    """Make a run folder, or take up the one that is there.

    Args:
      folder: of the run.
      config: that the run is to be trained with.
      accept_config_change: go on although the folder was started with another config, and keep the new one.

    Raises:
      UserError: the folder cannot be written, its config cannot be read, or is another one.
    """
    folder = Path(folder)
    path = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and not accept_config_change:
            changes = differences(_read_config(path), json.loads(config.to_json()))
            if changes:
                raise UserError(
                    f"{folder} was started with another config ({'; '.join(changes)});"
                    " choose another --workdir, or give --accept-config-change to go on with the new one"
                )
        write_atomically(path, config.to_json(indent=1).encode())
    except OSError as error:
        raise UserError(
            f"run folder {folder} cannot be written ({error.strerror}); choose another --workdir"
        ) from None
    return folder


def differences(old: dict, new: dict) -> list[str]:
    """`field: old -> new` for every field in which two configs differ."""
    old, new = (flatten_dict(config, sep=".") for config in (old, new))
    return [
        f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "absent") != new.get(name, "absent")
    ]


def check_same(folder: Path, config: ConfigDict, name: str) -> None:
    """Whether a finished run is the one that a config asks for; where its data set lies does not matter.

    Raises:
      UserError: it was trained with another config.
    """
    changes = differences(_read_config(folder / CONFIG), json.loads(config.to_json()))
    changes = [change for change in changes if not change.startswith("data.data_dir:")]
    if changes:
        raise UserError(
            f"{folder} was trained with another config than {name} ({'; '.join(changes)});"
            " name another --config.tokenizer_run, or change it back"
        )


def read_config(folder: str | Path) -> FrozenConfigDict:
    """The config of a run folder.

    Raises:
      UserError: there is no such folder, or it is no run.
    """
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise UserError(f"run {folder} does not exist; train one with train.py --workdir={folder}")
    if not path.exists():
        raise UserError(f"{folder} is no run folder: it has no {CONFIG}; name the --workdir of a run")
    config = FrozenConfigDict(_read_config(path))
    missing = [name for name in ("task", "model_name", "model", "data", "steps", "sampling") if name not in config]
    if missing:
        raise UserError(f"{path} has no field {missing[0]!r}; it is no config that train.py wrote")
    return config


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it or train the run again") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no config; restore it or train the run again")
    return config


def write_weights(folder: str | Path, params, variables, step: int) -> None:
    """Write the weights to sample with, from the first host.

    Args:
      folder: the run.
      params, variables: trees of arrays.
      step: optimizer steps they have seen.
    """
    if jax.process_count() > 1:  # shards of other hosts
        params, variables = multihost_utils.process_allgather((params, variables), tiled=True)
    if jax.process_index() > 0:
        return
    tree = flatten_dict({"params": params, "variables": variables}, sep="/")
    tensors = {name: np.ascontiguousarray(value) for name, value in tree.items()}
    # One entry: safetensors writes several in a random order, and equal weights should be equal files.
    metadata = {"t2i": json.dumps({"step": step, "sha256": _digest(tensors, step)})}
    write_atomically(Path(folder) / WEIGHTS, safetensors.numpy.save(tensors, metadata))


def write_scores(folder: str | Path, scores: dict) -> None:
    """Write the validation scores, from the first host."""
    if jax.process_index() == 0:
        write_atomically(Path(folder) / SCORES, json.dumps(scores, indent=1).encode())


def read_weights(folder: str | Path) -> tuple[dict, dict, int, str]:
    """The weights of a run.

    Returns:
      params, variables, the step, and the digest of all three.

    Raises:
      UserError: there are none yet, or the file is damaged.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"run {folder} has no weights yet; train it with train.py --workdir={folder}")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = json.loads(file.metadata()["t2i"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        step, expected = metadata["step"], metadata["sha256"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and run train.py --workdir={folder} again"
        ) from None
    if _digest(tensors, step) != expected:
        raise UserError(
            f"{path} is damaged (its digest does not fit); delete it and run train.py --workdir={folder} again"
        )
    tree = unflatten_dict(tensors, sep="/")
    return tree.get("params", {}), tree.get("variables", {}), step, expected


def is_finished(folder: str | Path) -> bool:
    """Whether a run has been trained to its last step."""
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        return False
    return read_weights(folder)[2] >= read_config(folder).steps


def _digest(tensors: dict, step: int) -> str:
    digest = hashlib.sha256(f"step {step}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
