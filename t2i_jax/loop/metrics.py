"""Metrics and picture grids, for TensorBoard and for people."""

import math
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tqdm import tqdm

from t2i_jax import hosts
from t2i_jax.errors import UserError
from t2i_jax.loop.state import State
from t2i_jax.loop.step import all_finite

AHEAD = 2  # steps that the device may have to do yet


def check_finite(state: State, last_good: int | None) -> None:
    """Whether a state may be saved: the update after a finite loss may overflow.

    Args:
      state: after a step.
      last_good: step of the newest checkpoint, for the message.

    Raises:
      UserError: a number in it is not finite.
    """
    if not jax.jit(all_finite)(state):
        raise _diverged(
            f"parameters or the optimizer's state are not finite after step {int(state.step)}", last_good
        )


def _diverged(what: str, last_good: int | None) -> UserError:
    where = "no checkpoint yet" if last_good is None else f"last good checkpoint: step {last_good}"
    return UserError(f"{what}; {where}; lower config.optim.lr, with --accept-config-change or in another --workdir")


class Metrics:
    """The log of a run; only the first host writes.

    Args:
      folder: of the run; events go to `logs/`, pictures to `pictures/` as well.
      step: steps done; events of later ones, left by a run that was stopped, are purged.
      skip: `config.skip_nonfinite`, updates in a row that may be skipped. They are counted from here on.
      second: makes another log of the folder, such as `weights_and_biases.Log`.
    """

    def __init__(self, folder: Path, step: int, skip: int = 0, second: Callable[[Path], Any] | None = None):
        self._events = self._second = None
        self._skip, self._skipped, self._in_a_row = skip, 0, 0
        if hosts.is_first():
            self._logs, self._pictures = folder / "logs", folder / "pictures"
            for path in (self._logs, self._pictures):
                path.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
            # Not SummaryWriter: its thread dies of a full disk with a traceback, and then training waits for it.
            self._events = RecordWriter(str(self._logs / name))
            self._write(file_version="brain.Event:2")
            self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
            self._charts = {}
            self._second = second and second(folder)
        self._pending = []  # metrics still on the device: fetching them each step would stall it

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._events:
            with suppress(OSError) if kind else nullcontext():  # what went wrong first is what counts
                self._events.close()
        if self._second:
            self._second.close(failed=kind is not None)

    def push(self, step: int, metrics: dict) -> None:
        """Take a step's metrics; of the last `AHEAD` steps it does not wait for them.

        Without this a slow device would have a minute of steps before it, which the bar shows as done and a stop
        waits for.
        """
        self._pending.append((step, metrics))
        jax.block_until_ready(self._pending[:-AHEAD][-1:])

    def flush(self, last_good: int | None) -> dict:
        """Check and log what was pushed.

        Args:
          last_good: step of the newest checkpoint, for the message.

        Returns:
          Means since the last flush over the steps whose updates were not skipped, and how many were, `skipped`.

        Raises:
          UserError: a loss or gradient was not finite, or more than `skip` updates in a row; names the first such
            step.
        """
        rows, self._pending = jax.device_get(self._pending), []
        for step, row in rows:
            self._check(step, row, last_good)
        if not rows:
            return {}
        kept = [row for _, row in rows if not row.get("skipped")]
        means = {name: float(np.mean([row[name] for row in kept])) for name in (kept[0] if kept else ())}
        if "skipped" in rows[0][1]:
            means["skipped"] = len(rows) - len(kept)
        self.scalars(rows[-1][0], {f"train/{name}": value for name, value in means.items()})
        return means

    def _check(self, step: int, row: dict, last_good: int | None) -> None:
        finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
        if finite and not row.get("skipped"):
            self._in_a_row = 0
            return
        said = f"loss is {row['loss']}, gradient norm {row['gradient_norm']} at step {step}"
        if finite:
            said = f"the update of step {step} is not finite ({said})"
        self._in_a_row += 1
        if self._in_a_row > self._skip:
            if self._skip:
                said += f", after {self._skip} skipped in a row (config.skip_nonfinite)"
            raise _diverged(said, last_good)
        self._skipped += 1
        if self._skipped == 1 and hosts.is_first():
            tqdm.write(
                f"warning: {said}: skipped; up to {self._skip} in a row are (config.skip_nonfinite), and counted in"
                " the log as train/skipped",
                file=sys.stderr,
            )

    def scalars(self, step: int, values: dict) -> None:
        """Log `{"group/name": number}`; several numbers as a histogram.

        Raises:
          OSError: names the folder; the disk is full or read-only.
        """
        self._lay_out(values)
        for name, value in values.items():
            if np.ndim(value):
                self._write(step, summary=summary.histogram(name, np.asarray(value), "auto"))
            else:
                self._write(step, summary=summary.scalar(name, value))
        self._write()
        if self._second:
            self._second.write(step, values)

    def _lay_out(self, names) -> None:
        """Have TensorBoard show in one chart what differs between `data/entropy` and `free_running/entropy`."""
        charts = {}
        for name in names:
            charts.setdefault(name.rpartition("/")[2], []).append(name)
        charts = {last: ["Multiline", own] for last, own in charts.items() if len(own) > 1}
        if self._events and not charts.items() <= self._charts.items():
            self._charts |= charts
            self._write(summary=summary.custom_scalars({"side by side": self._charts}))

    def pictures(self, step: int, grids: dict) -> None:
        """Log `{"name": uint8 [H, W, 3]}`.

        Raises:
          OSError: as in `scalars`.
        """
        for name, grid in grids.items():
            self._write(step, summary=summary.image(name, grid, dataformats="HWC"))
            if self._events:
                Image.fromarray(grid).save(self._pictures / f"{name}_{step:07d}.png")
        self._write()
        if self._second:
            self._second.write(step, grids)

    def _write(self, step: int = 0, **what) -> None:
        """Write one event; without one, bring those written to the disk."""
        if not self._events:
            return
        try:
            if what:
                self._events.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
            else:
                self._events.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._logs)) from None
