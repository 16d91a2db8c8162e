"""Metrics and picture grids, for TensorBoard and for people."""

import math
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from t2i_jax.errors import UserError


class Metrics:
    """The log of a run; only the first host writes.

    Args:
      folder: of the run; events go to `logs/`, pictures to `pictures/` as well.
      step: steps done; events of later ones, left by a run that was stopped, are purged.
    """

    def __init__(self, folder: Path, step: int):
        self._writer = None
        if jax.process_index() == 0:
            self._writer = SummaryWriter(str(folder / "logs"), purge_step=step + 1)
            self._pictures = folder / "pictures"
            self._pictures.mkdir(exist_ok=True)
        self._pending = []  # metrics still on the device: fetching them each step would stall it

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writer:
            self._writer.close()

    def push(self, step: int, metrics: dict) -> None:
        """Take a step's metrics without waiting for them."""
        self._pending.append((step, metrics))

    def flush(self, last_good: int | None) -> dict:
        """Check and log what was pushed.

        Args:
          last_good: step of the newest checkpoint, for the message.

        Returns:
          Means since the last flush.

        Raises:
          UserError: a loss or gradient was not finite; names the first such step.
        """
        rows, self._pending = jax.device_get(self._pending), []
        for step, row in rows:
            if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
                where = "no checkpoint yet" if last_good is None else f"last good checkpoint: step {last_good}"
                raise UserError(
                    f"loss is {row['loss']}, gradient norm {row['gradient_norm']} at step {step}; {where};"
                    " lower config.optim.lr, with --accept-config-change or in another --workdir"
                )
        if not rows:
            return {}
        means = {name: float(np.mean([row[name] for _, row in rows])) for name in rows[0][1]}
        self.scalars(rows[-1][0], {f"train/{name}": value for name, value in means.items()})
        return means

    def scalars(self, step: int, values: dict) -> None:
        """Log `{"group/name": number}`."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, grids: dict) -> None:
        """Log `{"name": uint8 [H, W, 3]}`."""
        if self._writer:
            for name, grid in grids.items():
                self._writer.add_image(name, grid, step, dataformats="HWC")
                Image.fromarray(grid).save(self._pictures / f"{name}_{step:07d}.png")
