"""Checkpoints: the training state and the place in the data, saved together by Orbax."""

import sys
from pathlib import Path

import grain
import jax
import orbax.checkpoint as ocp

from t2i_jax.errors import UserError
from t2i_jax.loop.state import State


class Checkpoints:
    """The checkpoints of a run, in `folder/checkpoints`. A context manager: leaving it waits for the last save."""

    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._folder = folder / "checkpoints"
        self._manager = ocp.CheckpointManager(self._folder.resolve(), options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, state: State, stream: grain.DatasetIterator) -> None:
        """Save the state and the iterator's position under the state's step, in the background."""
        arguments = {
            "state": ocp.args.StandardSave(state),
            "data": grain.checkpoint.CheckpointSave(stream),
        }
        step = int(state.step)
        if step in self._manager.all_steps():  # one that could not be read, and has been trained again
            self._manager.delete(step)
        self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)

    def restore(self, state: State, stream: grain.DatasetIterator) -> tuple[State, grain.DatasetIterator]:
        """The newest state that can be read, and the iterator at its place.

        Args:
          state: its shapes, types and placement are those restored.
          stream: of the run.

        Raises:
          UserError: no checkpoint can be read, or it holds a model of another shape.
        """
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        arguments = {
            "state": ocp.args.StandardRestore(wanted),
            "data": grain.checkpoint.CheckpointRestore(stream),
        }
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
            except Exception as error:  # Orbax raises three kinds for damaged files and more for other shapes
                reason = " ".join(str(error).split())[:200]
                print(f"warning: checkpoint {step} in {self._folder} cannot be read: {reason}", file=sys.stderr)
            else:
                return restored["state"], restored["data"]
        raise UserError(
            f"no checkpoint in {self._folder} fits this config or can be read; delete the folder to start again,"
            " or choose another --workdir"
        )
