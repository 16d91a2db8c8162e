"""Run folders: a config, weights with a checksum, and what else is needed to use them.

config.json          the config the run is trained with, and the number of this format
model.safetensors    weights to sample with, as of the last checkpoint
scores.json          the last validation scores
text_tokenizer.json  captions -> ids, of a run that reads captions
parents/NAME/        a copy of each run that this one builds on: the first three of its files
tokens/              in an image tokenizer's run, what it made of data sets, and a frozen text encoder of captions
checkpoints/         training state; logs/ and pictures/ for people, never read here
lock, lock.owner     held while training or making tokens, and by which process

Every file that is read carries a digest: JSON and weights in themselves, checkpoints in a manifest.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, FrozenConfigDict

from t2i_jax import files, hosts, ranges
from t2i_jax.errors import UserError, one_line

CONFIG, WEIGHTS, SCORES = "config.json", "model.safetensors", "scores.json"
TEXT_TOKENIZER, PARENTS, CHECKPOINTS = "text_tokenizer.json", "parents", "checkpoints"
DEEPEST = 50  # a weight's name has fewer parts
FORMAT = 1  # of all but checkpoints; who raises it reads the older ones too


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


def write_config(folder: Path, config: ConfigDict) -> None:
    """Keep the config that the run is trained with from here on."""
    if hosts.is_first():
        files.write_json(folder / CONFIG, {"format": FORMAT, **json.loads(config.to_json())})


def parents(config, folder: str | Path) -> dict[str, tuple[ConfigDict, str]]:
    """The runs that a run builds on: by name, the config of each and its folder.

    One that names no folder is the copy in the run's own `folder`; see `adopt_parents`.
    """
    named = config.get("parents", {}).items()
    return {name: (parent.config, parent.run or str(parent_folder(folder, name))) for name, parent in named}


def adopt_parents(config, folder: Path) -> None:
    """Copy parents that name no folder from the run `config.init_from`, where they are not yet in `folder`.

    Raises:
      UserError: that run has no such parent.
    """
    for name, parent in config.get("parents", {}).items():
        if not (parent.run or (parent_folder(folder, name) / WEIGHTS).exists()):
            source = parent_folder(config.init_from, name)
            read_config(source)
            copy_parent(source, folder, name)


def parent_folder(folder: str | Path, name: str) -> Path:
    """Where a run keeps its copy of a parent."""
    return Path(folder) / PARENTS / name


def copy_parent(run: Path, folder: Path, name: str) -> None:
    """Put a copy of a parent into a run that builds on it: a run folder is self-contained.

    Raises:
      UserError: the parent's scores are corrupt.
    """
    copied = [CONFIG, WEIGHTS, *([SCORES] if read_scores(run) else [])]
    own = parent_folder(folder, name)
    own.mkdir(parents=True, exist_ok=True)
    for file in copied:
        files.write_atomically(own / file, (run / file).read_bytes())


def read_scores(folder: Path) -> dict:
    """The validation scores that training left in a run; empty where it has not come to any.

    Raises:
      UserError: they are corrupt.
    """
    if not (folder / SCORES).exists():
        return {}
    try:
        return files.read_json(folder / SCORES)
    except files.CorruptError as error:
        raise UserError(f"{error}; delete it to go on without it") from None


def has_begun(folder: Path) -> bool:
    """Whether anything of a run was saved."""
    return bool(checkpoint_steps(folder)) or (folder / WEIGHTS).exists()


def scored_step(folder: Path) -> int | None:
    """The step of the scores of a run; None where there are none."""
    try:
        return files.read_json(folder / SCORES).get("step")
    except files.CorruptError:
        return None


def read_config(folder: str | Path) -> FrozenConfigDict:
    """The config of a run folder.

    Raises:
      UserError: there is no such folder, it is no run, or its config is corrupt.
    """
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise UserError(f"run {folder} does not exist; train one with train.py --workdir={folder}")
    if not path.exists():
        raise UserError(f"{folder} is no run folder: {path} is missing; name the --workdir of a run")
    content = read_written_config(path)
    if wrong := ranges.wrong_kind(content):
        raise UserError(f"{path} {wrong}; it is no config that train.py wrote, restore it")
    try:
        return FrozenConfigDict(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no config that train.py wrote ({one_line(error)}); restore it") from None


def read_written_config(path: Path) -> dict:
    """The config in a run's file, as `write_config` was given it.

    Raises:
      UserError: it is corrupt, or of a newer format than this version reads.
    """
    try:
        return unpack_config(path)
    except files.CorruptError as error:
        way_out = "the same train.py command with --accept-config-change writes it anew"
        raise UserError(f"{error}; restore it, or: {way_out}") from None


def unpack_config(path: Path) -> dict:
    """As `read_written_config`, for those who can do without.

    Raises:
      CorruptError: it is corrupt.
      UserError: see `read_written_config`.
    """
    content = files.read_json(path)
    found = content.pop("format", 1)
    if found not in range(1, FORMAT + 1):
        raise UserError(
            f"{path} has format {found!r}; this version of t2i_jax reads up to {FORMAT}: install a newer one"
            " (pip install --upgrade t2i-jax)"
        )
    return content


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
    if not hosts.is_first():
        return
    tensors = _tensors(params, variables)
    # One entry: safetensors writes several in a random order, and equal weights should be equal files.
    metadata = {"t2i": json.dumps({"step": step, "sha256": digest_of(tensors, f"step {step}")})}
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
    if hosts.is_first():
        files.write_json(Path(folder) / SCORES, scores)


def read_weights(folder: str | Path, recover: Callable | None = None) -> tuple[dict, dict, int, str]:
    """The weights of a run.

    Args:
      folder: of the run.
      recover: `folder -> (params, variables, step)` from the newest good checkpoint, or None where there is none;
        used, with a warning, where the weights' file is corrupt or missing.

    Returns:
      params, variables, the step, and the digest of all three.

    Raises:
      UserError: there are none yet, or the file is corrupt and nothing else can be had.
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
    return params, variables, step, digest_of(_tensors(params, variables), f"step {step}")


def load_weights(path: Path) -> tuple[dict, dict, int, str]:
    """What `write_weights` wrote; see `read_weights`.

    Raises:
      CorruptError: the file is missing or corrupt.
    """
    if not path.is_file():
        raise files.CorruptError(f"{path} is missing")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = json.loads(file.metadata()["t2i"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        step, expected = metadata["step"], metadata["sha256"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise files.CorruptError(f"{path} is corrupt ({one_line(error)})") from None
    if digest_of(tensors, f"step {step}") != expected:
        raise files.CorruptError(f"{path} is corrupt (its checksum does not fit)")
    if not (_are_paths(tensors) and isinstance(step, int)):
        raise files.CorruptError(f"{path} is corrupt (its names or its step are none of a run's)")
    tree = unflatten_dict(tensors, sep="/")
    return tree.get("params", {}), tree.get("variables", {}), step, expected


def _are_paths(names: Collection[str]) -> bool:
    """Whether names say a tree of params and variables: no array stands where others have a branch."""
    if not all(name.startswith(("params/", "variables/")) and name.count("/") < DEEPEST for name in names):
        return False
    branches = {name[:place] for name in names for place, sign in enumerate(name) if sign == "/"}
    return branches.isdisjoint(names)


def checkpoint_steps(folder: str | Path) -> list[int]:
    """Steps of a run that have a checkpoint, good or not, the newest first."""
    folder = Path(folder) / CHECKPOINTS
    if not folder.is_dir():
        return []
    return sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)


def _tensors(params, variables) -> dict:
    tree = flatten_dict({"params": params, "variables": variables}, sep="/")
    return {name: np.ascontiguousarray(value) for name, value in tree.items()}


def digest_of(tensors: dict[str, np.ndarray], about: str) -> str:
    """sha256 of arrays by name, and of what else is said about them."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
