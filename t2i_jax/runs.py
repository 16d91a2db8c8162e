"""Run folders: a config, weights that vouch for themselves, and what else a stage needs to be used.

config.json          the config the run was started with
model.safetensors    weights to sample with, as of the last checkpoint
scores.json          the last validation scores
text_tokenizer.json  (translators) captions -> ids
tokenizer/           (translators) a copy of the picture tokenizer: the first three of its files
checkpoints/         training state; logs/ and pictures/ for people, never read here
lock                 held while training

Every file that is read carries a digest: JSON and weights in themselves, checkpoints in a manifest.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, FrozenConfigDict

from t2i_jax import files
from t2i_jax.errors import UserError

CONFIG, WEIGHTS, SCORES = "config.json", "model.safetensors", "scores.json"
TEXT_TOKENIZER, TOKENIZER, CHECKPOINTS = "text_tokenizer.json", "tokenizer", "checkpoints"


def make_folder(folder: str | Path) -> Path:
    """Make a run folder where there is none.

    Raises:
      UserError: it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"run folder {folder} cannot be written ({error.strerror}); choose another --workdir"
        ) from None
    return folder


def check_config_change(folder: Path, config: ConfigDict, *, accept: bool = False) -> bool:
    """Compare the config a run is to be trained with to the one it was started with, if it was.

    Args:
      folder: of the run.
      config: that it is to be trained with.
      accept: print the differences instead of raising.

    Returns:
      Whether differences were accepted.

    Raises:
      UserError: the configs differ, or the run's cannot be read.
    """
    path = folder / CONFIG
    if not any((folder / name).exists() for name in (CONFIG, WEIGHTS, "checkpoints")):
        return False
    try:
        changes = differences(files.read_json(path), json.loads(config.to_json()))
    except files.CorruptError as error:
        if not accept:
            raise UserError(f"{error}; give --accept-config-change to go on with the config named now") from None
        changes = [str(error)]
    if changes and not accept:
        raise UserError(
            f"{folder} was started with another config ({'; '.join(changes)});"
            " choose another --workdir, or give --accept-config-change to go on with the new one"
        )
    for change in changes:
        print(f"warning: accepted config change: {change}", file=sys.stderr)
    return bool(changes)


def check_new(folder: Path) -> None:
    """Whether a run without a checkpoint has never been trained: a checkpoint is written before weights are.

    Raises:
      UserError: it has weights.
    """
    if (folder / WEIGHTS).exists():
        raise UserError(
            f"{folder / WEIGHTS} is there, but no checkpoint to continue from; restore {folder / 'checkpoints'}, or"
            f" delete {folder} or choose another --workdir to train from the start"
        )


def warn_of_newer_weights(folder: Path, step: int) -> None:
    """Say so where the weights have seen more steps than the checkpoint that a run continues from."""
    with suppress(files.CorruptError):
        newer = load_weights(folder / WEIGHTS)[2]
        if newer > step:
            print(
                f"warning: the weights are of step {newer}, the newest good checkpoint is of step {step}; the steps"
                " between are trained again",
                file=sys.stderr,
            )


def write_config(folder: Path, config: ConfigDict) -> None:
    """Keep the config that the run is trained with from here on."""
    if jax.process_index() == 0:
        files.write_json(folder / CONFIG, json.loads(config.to_json()))


def differences(old: dict, new: dict) -> list[str]:
    """`field: old -> new` for every field in which two configs differ."""
    old, new = (flatten_dict(config, sep=".") for config in (old, new))
    return [
        f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "absent") != new.get(name, "absent")
    ]


def check_same(folder: Path, config: ConfigDict, name: str, *, accept: bool = False) -> None:
    """Whether a finished run is the one that a config asks for; where its data set lies does not matter.

    Of a run that was converted, the task and the model alone count: it was not trained here.

    Args:
      folder: of the run.
      config: that is asked for.
      name: of the config, for the message.
      accept: print the differences instead of raising.

    Raises:
      UserError: it was trained with another config.
    """
    own = _read_config(folder / CONFIG)
    changes = differences(own, json.loads(config.to_json()))
    changes = [change for change in changes if not change.startswith("data.data_dir:")]
    if "converted_from" in own:
        changes = [change for change in changes if change.startswith(("task:", "model_name:", "model."))]
    if changes and not accept:
        raise UserError(
            f"{folder} was trained with another config than {name} ({'; '.join(changes)});"
            " name another --config.tokenizer_run, change it back, or give --accept-config-change to use the run as"
            " it is"
        )
    for change in changes:
        print(f"warning: {folder} is used as it is: {change}", file=sys.stderr)


def read_config(folder: str | Path) -> FrozenConfigDict:
    """The config of a run folder.

    Raises:
      UserError: there is no such folder, it is no run, or its config is damaged.
    """
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise UserError(f"run {folder} does not exist; train one with train.py --workdir={folder}")
    if not path.exists():
        raise UserError(f"{folder} is no run folder: {path} is missing; name the --workdir of a run")
    config = FrozenConfigDict(_read_config(path))
    missing = [name for name in ("task", "model_name", "model", "data", "steps", "sampling") if name not in config]
    if missing:
        raise UserError(f"{path} has no field {missing[0]!r}; it is no config that train.py wrote")
    return config


def _read_config(path: Path) -> dict:
    try:
        return files.read_json(path)
    except files.CorruptError as error:
        way_out = "the same train.py command with --accept-config-change writes it anew"
        raise UserError(f"{error}; restore it, or: {way_out}") from None


def write_weights(folder: str | Path, params, variables, step: int) -> None:
    """Write the weights to sample with, from the first host; after their checkpoint.

    Args:
      folder: the run.
      params, variables: trees of arrays.
      step: optimizer steps they have seen.

    Raises:
      UserError: they cannot be written.
    """
    if jax.process_count() > 1:  # shards of other hosts
        params, variables = multihost_utils.process_allgather((params, variables), tiled=True)
    if jax.process_index() > 0:
        return
    tensors = _tensors(params, variables)
    # One entry: safetensors writes several in a random order, and equal weights should be equal files.
    metadata = {"t2i": json.dumps({"step": step, "sha256": _digest(tensors, step)})}
    path = Path(folder) / WEIGHTS
    try:
        files.write_atomically(path, safetensors.numpy.save(tensors, metadata))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); the checkpoint of step {step} stands; make room or mend"
            " the disk, and the same command continues"
        ) from None


def write_scores(folder: str | Path, scores: dict) -> None:
    """Write the validation scores, from the first host."""
    if jax.process_index() == 0:
        files.write_json(Path(folder) / SCORES, scores)


def read_weights(folder: str | Path, recover: Callable | None = None) -> tuple[dict, dict, int, str]:
    """The weights of a run.

    Args:
      folder: of the run.
      recover: `folder -> (params, variables, step)` from the newest good checkpoint, or None where there is none;
        used, with a warning, where the weights' file is damaged or missing.

    Returns:
      params, variables, the step, and the digest of all three.

    Raises:
      UserError: there are none yet, or the file is damaged and nothing else can be had.
    """
    folder = Path(folder)
    try:
        return load_weights(folder / WEIGHTS)
    except files.CorruptError as error:
        found = recover(folder) if recover else None
        if found is None:
            if not (folder / WEIGHTS).exists():
                raise UserError(
                    f"run {folder} has no weights; train it with train.py --workdir={folder}, or restore"
                    f" {folder / WEIGHTS}"
                ) from None
            raise UserError(f"{error}, and {folder} has no checkpoint; restore it or train the run again") from None
        params, variables, step = found
        print(f"warning: {error}; using the checkpoint of step {step}", file=sys.stderr)
    params, variables = jax.tree.map(np.asarray, (params, variables))
    return params, variables, step, _digest(_tensors(params, variables), step)


def load_weights(path: Path) -> tuple[dict, dict, int, str]:
    """What `write_weights` wrote; see `read_weights`.

    Raises:
      CorruptError: the file is missing or damaged.
    """
    if not path.is_file():
        raise files.CorruptError(f"{path} is missing")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = json.loads(file.metadata()["t2i"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        step, expected = metadata["step"], metadata["sha256"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise files.CorruptError(f"{path} is damaged ({error})") from None
    if _digest(tensors, step) != expected:
        raise files.CorruptError(f"{path} is damaged (its digest does not fit)")
    tree = unflatten_dict(tensors, sep="/")
    return tree.get("params", {}), tree.get("variables", {}), step, expected


def is_finished(folder: str | Path, config: ConfigDict) -> bool:
    """Whether a run has been trained to `config.steps` and all its parts are whole; says which are not."""
    folder = Path(folder)
    try:
        step = load_weights(folder / WEIGHTS)[2]
        files.read_json(folder / CONFIG)
        if "tokenizer_run" in config:
            for path in (folder / TEXT_TOKENIZER, folder / TOKENIZER / CONFIG):
                files.read_json(path)
            load_weights(folder / TOKENIZER / WEIGHTS)
    except files.CorruptError as error:
        if checkpoint_steps(folder):
            print(f"warning: {error}", file=sys.stderr)
        return False
    return step >= config.steps


def checkpoint_steps(folder: str | Path) -> list[int]:
    """Steps of a run that have a checkpoint, good or not, the newest first."""
    folder = Path(folder) / CHECKPOINTS
    if not folder.is_dir():
        return []
    return sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)


def _tensors(params, variables) -> dict:
    tree = flatten_dict({"params": params, "variables": variables}, sep="/")
    return {name: np.ascontiguousarray(value) for name, value in tree.items()}


def _digest(tensors: dict, step: int) -> str:
    digest = hashlib.sha256(f"step {step}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
