"""Checkpoints: the training state and the place in the data, saved together by Orbax, sealed with digests.

    checkpoints/STEP/state, data   Orbax's; checkpoints/STEP/digests.json lists the sha256 of every file

A checkpoint is written under the name STEP.partial, read back and compared bit by bit, sealed, and only then
renamed. Orbax alone restores a flipped byte without a word.
"""

import json
import shutil
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from t2i_jax import files, runs
from t2i_jax.errors import UserError
from t2i_jax.loop.state import State


class Checkpoints:
    """The checkpoints of a run, in `folder/checkpoints`; `save` and `restore` are for the holder of the run's lock.

    Args:
      folder: of the run.
      keep: how many `save` leaves, at least 1.

    Attributes:
      made_from: digest of what the run builds on (a translator's tokenizer), sealed into what is saved.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self._folder, self._keep = folder / runs.CHECKPOINTS, keep
        self._damaged: set[int] = set()  # steps that could not be restored
        self.made_from = ""
        self._orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler())

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, good or not, the newest first."""
        return runs.checkpoint_steps(self._folder.parent)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return next(iter(self.steps), None)

    @property
    def good(self) -> int | None:
        """The step of the newest checkpoint that is not known to be damaged."""
        return next((step for step in self.steps if step not in self._damaged), None)

    def check_made_from(self, digest: str, name: str) -> None:
        """Whether the newest checkpoint that has a whole manifest builds on the same; says nothing where none has.

        Raises:
          UserError: it builds on something else than what `digest` is of and `name` names.
        """
        for step in self.steps:
            try:
                made_from = files.read_json(self._folder / str(step) / files.MANIFEST).get("made_from")
            except files.CorruptError:
                continue
            if made_from != digest:
                raise UserError(
                    f"{self._folder.parent} was trained on the tokens of another tokenizer than {name} holds now;"
                    " choose another --workdir"
                )
            return

    def save(self, state: State, stream: grain.DatasetIterator) -> None:
        """Save the state and the iterator's position under the state's step; afterwards delete what is too old.

        Raises:
          UserError: it cannot be written or does not read back as it was; the ones before it still stand.
        """
        step, last = int(state.step), self.good
        partial, final = self._folder / f"{step}.partial", self._folder / str(step)
        arguments = {"state": ocp.args.StandardSave(state), "data": grain.checkpoint.CheckpointSave(stream)}
        try:
            self._folder.mkdir(exist_ok=True)
            self._sweep()
            self._orbax.save(partial.resolve(), args=ocp.args.Composite(**arguments))
            _check_equal(state, self._read(partial, ocp.args.StandardRestore(_shapes(state)))["state"])
            _check_place(stream, partial / "data")
            if jax.process_index() == 0:
                files.write_manifest(partial, step=step, made_from=self.made_from)
                if final.exists():  # one that could not be read, and has been trained again
                    final.rename(final.with_suffix(".old"))
                partial.rename(final)
                files.sync_folder(self._folder)
        except Exception as error:  # a full disk reaches us through Orbax and TensorStore under many names
            if jax.process_index() == 0 and self._folder.is_dir():
                self._sweep()
            stands = "there is none before it" if last is None else f"that of step {last} stands"
            raise UserError(
                f"the checkpoint of step {step} cannot be saved in {self._folder}: {_first_line(error)}; {stands};"
                " make room or mend the disk, and the same command continues"
            ) from None
        multihost_utils.sync_global_devices("checkpoint saved")
        whole = [step, *(other for other in self.steps if other < step and other not in self._damaged)]
        for other in set(self.steps) - set(whole[: self._keep]):
            (self._folder / str(other)).rename(self._folder / f"{other}.old")  # never half a checkpoint by its name
        self._damaged.clear()
        self._sweep()

    def restore(self, state: State, stream: grain.DatasetIterator) -> tuple[State, grain.DatasetIterator]:
        """The newest state that is whole, and the iterator at its place.

        Args:
          state: its shapes, types and placement are those restored.
          stream: of the run.

        Raises:
          UserError: no checkpoint is whole, or it holds a model of another shape.
        """
        data = grain.checkpoint.CheckpointRestore(stream)
        restored = self._newest(ocp.args.StandardRestore(_shapes(state)), data=data)
        self._sweep()
        return restored["state"], restored["data"]

    def weights(self) -> tuple[dict, dict, int]:
        """Params to sample with, variables and the step of the newest whole checkpoint.

        Raises:
          UserError: there is none.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        state = self._newest(ocp.args.StandardRestore(fallback_sharding=here))["state"]
        return state["ema_params"] or state["params"], state["variables"] or {}, int(state["step"])

    def _newest(self, state, **others):
        for step in self.steps:
            folder = self._folder / str(step)
            try:
                if files.verify_manifest(folder)["step"] != step:
                    raise UserError(f"{folder} holds another step")
                restored = self._read(folder, state, **others)
            except Exception as error:  # Orbax raises several kinds for other shapes
                print(f"warning: checkpoint {step} is not used: {_first_line(error)}", file=sys.stderr)
                self._damaged.add(step)
            else:
                if self._damaged:
                    print(f"warning: using the checkpoint of step {step} instead", file=sys.stderr)
                return restored
        raise UserError(
            f"no checkpoint in {self._folder} is whole and fits this config; delete {self._folder.parent} to start"
            " again, or choose another --workdir"
        )

    def _read(self, folder: Path, state, **others):
        return self._orbax.restore(folder.resolve(), args=ocp.args.Composite(state=state, **others))

    def _sweep(self) -> None:
        """Remove what a killed save or deletion left: STEP.old, and STEP.partial under any of Orbax's names."""
        if jax.process_index() == 0:
            for ending in (".old", ".partial*"):
                for path in self._folder.glob(f"[0-9]*{ending}"):
                    shutil.rmtree(path)


def _shapes(state):
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)


def _check_equal(state, restored) -> None:
    for (path, one), other in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(restored), strict=True):
        for here, there in zip(one.addressable_shards, other.addressable_shards, strict=True):
            if np.asarray(here.data).tobytes() != np.asarray(there.data).tobytes():
                raise OSError(f"{jax.tree_util.keystr(path)} does not read back as it was written")


def _check_place(stream, folder: Path) -> None:
    """Compare the place in the data that was written for this host with the stream's."""
    path = folder / f"process_{jax.process_index()}-of-{jax.process_count()}.json"
    if json.loads(path.read_text()) != stream.get_state():
        raise OSError(f"{path} does not read back as it was written")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
