"""Checkpoints: the training state and the iterator's position, written together and sealed with checksums.

    checkpoints/STEP/state          the arrays, as Orbax writes them
    checkpoints/STEP/data           each host's position in the training data
    checkpoints/STEP/digests.json   the sha256 of every file, the step, and the digests of the run's parents

A checkpoint is written under the name STEP.partial, read back and compared bit by bit, sealed, and only then
renamed. Orbax alone restores a flipped byte without a word.
"""

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax import files, hosts, runs
from t2i_jax.errors import UserError, one_line
from t2i_jax.loop import arrays
from t2i_jax.loop.state import State


class Checkpoints:
    """The checkpoints of a run, in `folder/checkpoints`; `save` and `restore` are for the holder of the run's lock.

    With several hosts, all of them call every method, on a folder that they share.

    Args:
      folder: of the run.
      keep: how many `save` leaves, at least 1.

    Raises:
      UserError: Orbax cannot write below such a path.

    Attributes:
      parents: digest of each run that this one builds on, by name, sealed into what is saved.
    """

    def __init__(self, folder: Path, keep: int = 1):
        if found := sorted(set("[]*?") & set(str(folder.absolute()))):
            raise UserError(
                f"{folder.absolute()} has a {found[0]!r} in it, which Orbax takes for a pattern; choose another"
                " --workdir"
            )
        self._folder, self._keep = folder / runs.CHECKPOINTS, keep
        self._corrupt: set[int] = set()  # steps whose checksums do not fit, as the first host knows
        self.parents: dict[str, str] = {}

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, corrupt or not, the newest first."""
        return runs.checkpoint_steps(self._folder.parent)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return next(iter(self.steps), None)

    @property
    def good(self) -> int | None:
        """The step of the newest checkpoint that is not known to be corrupt."""
        return next((step for step in self.steps if step not in self._corrupt), None)

    def check_parents(self, parents: dict[str, tuple[str, str]]) -> None:
        """Compare a run's parents with those that its newest checkpoint was trained on; passes where there is none.

        Args:
          parents: `{name: (digest, how to show it to people)}`.

        Raises:
          UserError: names the first parent that is another now.
        """
        for step in self.steps:
            try:
                recorded = files.read_json(self._folder / str(step) / files.MANIFEST).get("parents", {})
            except files.CorruptError:
                continue
            for name, (digest, shown) in parents.items():
                if recorded.get(name) != digest:
                    raise UserError(
                        f"{self._folder.parent} was trained on another {name} than {shown} holds now; restore that"
                        " one, or choose another --workdir"
                    )
            return

    def save(self, state: State, stream: grain.DatasetIterator) -> None:
        """Save the state and the iterator's position under the state's step; afterwards delete what is too old.

        The devices hold no second copy of the state: what was written is compared in the host's memory.

        Raises:
          UserError: it cannot be written, here or on another host, or does not read back as it was; the ones
            before it still stand.
        """
        step, last = int(state.step), self.good
        partial, final = self._folder / f"{step}.partial", self._folder / str(step)
        try:
            with hosts.agreed():
                if hosts.is_first():
                    self._folder.mkdir(exist_ok=True)
                    self._sweep()
                    (partial / "state").mkdir(parents=True)
                    (partial / "data").mkdir()
            with hosts.agreed():
                arrays.write(partial / "state", state)
                _position_file(partial).write_text(json.dumps(stream.get_state(), indent=1))
            hosts.on_first(lambda: arrays.finish(partial / "state"))
            with hosts.agreed():
                arrays.check_equal(partial / "state", state)
                _check_position(partial, stream)
            with hosts.agreed():
                if hosts.is_first():
                    files.write_manifest(partial, step=step, parents=self.parents)
                    if final.exists():  # a corrupt one, whose step has been trained again
                        final.rename(final.with_suffix(".old"))
                    partial.rename(final)
                    files.sync_folder(self._folder)
        except Exception as error:  # a full disk reaches us through Orbax and TensorStore under many names
            if hosts.is_first() and self._folder.is_dir():
                self._sweep()
            stands = "there is none before it" if last is None else f"that of step {last} stands"
            room = "make room, and " if os.strerror(errno.ENOSPC) in str(error) else ""
            raise UserError(
                f"the checkpoint of step {step} cannot be saved in {self._folder}: {one_line(error)}; {stands};"
                f" {room}the same command continues"
            ) from None
        hosts.on_first(lambda: self._retire(step))

    def restore(self, state: State, stream: grain.DatasetIterator) -> tuple[State, grain.DatasetIterator]:
        """The newest state whose checksums fit, and the iterator at its position.

        Args:
          state: arrays or `jax.ShapeDtypeStruct`; their shapes, types and shardings are those restored.
          stream: of the run; it reads nothing yet.

        Raises:
          UserError: every checkpoint is corrupt; or the newest complete one holds another model, was saved by
            another number of hosts, or cannot be read just now. For these, none is passed over or deleted.
        """
        folder = self._folder / str(self._newest())
        with hosts.agreed(), _explained(folder):
            arrays.check_fits(folder / "state", state)
            position = _read_position(folder)
            state = arrays.read(folder / "state", state)
            stream.set_state(position)
        if hosts.is_first():
            self._sweep()
        return state, stream

    def weights(self) -> tuple[dict, dict, int]:
        """Params to sample with and variables, as numpy arrays, and the step of the newest complete checkpoint.

        Raises:
          UserError: there is none, or it cannot be read just now.
        """
        step = self._newest()
        folder = self._folder / str(step)
        with hosts.agreed(), _explained(folder):
            params, variables = arrays.read_parts(
                folder / "state",
                lambda tree: ("ema_params" if tree.get("ema_params") else "params", "variables"),
            ).values()
        return params, variables, step

    def _newest(self) -> int:
        """The newest step whose checksums fit; the first host reads, and names and remembers corrupt ones."""
        step = hosts.on_first(self._newest_complete)
        return int(multihost_utils.broadcast_one_to_all(np.int32(step or 0)))

    def _newest_complete(self) -> int:
        for step in self.steps:
            folder = self._folder / str(step)
            try:
                with _explained(folder):
                    sealed = files.verify_manifest(folder).get("step")
                if sealed != step:
                    raise files.CorruptError(f"{folder} holds step {sealed}")
            except files.CorruptError as error:
                print(f"warning: checkpoint {step} is not used: {one_line(error)}", file=sys.stderr)
                self._corrupt.add(step)
            else:
                if self._corrupt:
                    print(f"warning: using the checkpoint of step {step} instead", file=sys.stderr)
                return step
        raise UserError(
            f"no checkpoint in {self._folder} is complete; delete {self._folder.parent} to start again, or choose"
            " another --workdir"
        )

    def _retire(self, step: int) -> None:
        """Delete corrupt checkpoints, and those before `step` that are more than are to be kept."""
        complete = [other for other in self.steps if other < step and other not in self._corrupt]
        corrupt = self._corrupt & set(self.steps) - {step}
        for other in [*complete[self._keep - 1 :], *corrupt]:
            (self._folder / str(other)).rename(self._folder / f"{other}.old")  # never half a checkpoint by its name
        self._corrupt.clear()
        self._sweep()

    def _sweep(self) -> None:
        """Remove what an interrupted save or deletion left: STEP.old and STEP.partial."""
        for ending in (".old", ".partial"):
            for path in self._folder.glob(f"[0-9]*{ending}"):
                shutil.rmtree(path)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what is no fault of a checkpoint's files, such as a disk that does not answer, into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # memory, disks and networks reach us through Orbax and XLA under many names
        raise UserError(
            f"{folder} cannot be read just now ({one_line(error)}); nothing was deleted: free memory or mend the"
            " disk, and the same command continues"
        ) from error


def _position_file(folder: Path) -> Path:
    return folder / "data" / f"process_{jax.process_index()}-of-{jax.process_count()}.json"


def _check_position(folder: Path, stream: grain.DatasetIterator) -> None:
    path = _position_file(folder)
    if json.loads(path.read_text()) != stream.get_state():
        raise OSError(f"{path} does not read back as it was written")


def _read_position(folder: Path) -> dict:
    path = _position_file(folder)
    if not path.exists():
        count = len(list(path.parent.iterdir()))
        raise UserError(
            f"{folder} was saved by {count} host(s), and now there are {jax.process_count()}; use {count}"
        )
    return json.loads(path.read_text())
