"""Checkpoints: the training state and the place in the data, saved together by Orbax."""

from pathlib import Path

import grain
import jax
import orbax.checkpoint as ocp

from t2i_jax.loop.state import State


class Checkpoints:
    """The checkpoints of a run, in `folder/checkpoints`. A context manager: leaving it waits for the last save."""

    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options)

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
        self._manager.save(int(state.step), args=ocp.args.Composite(**arguments), force=True)

    def restore(self, state: State, stream: grain.DatasetIterator) -> tuple[State, grain.DatasetIterator]:
        """The newest state and the iterator at its place; shapes, types and placement are `state`'s."""
        arguments = {
            "state": ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
            "data": grain.checkpoint.CheckpointRestore(stream),
        }
        restored = self._manager.restore(self.latest, args=ocp.args.Composite(**arguments))
        return restored["state"], restored["data"]
