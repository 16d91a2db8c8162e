"""A second log of a run, in Weights & Biases: where `config.wandb` names a project, and imported there alone."""

import secrets
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from t2i_jax.errors import UserError, one_line


def check(config) -> None:
    """Raises UserError where a project is named, and the package is not installed."""
    if config.wandb and find_spec("wandb") is None:
        raise UserError(f"config.wandb {config.wandb} needs its package: pip install wandb; or leave it empty")


class Log:
    """A run of the project, which continues where the run in `folder` does. What fails later is a warning.

    Raises:
      UserError: it cannot be begun, such as without a login.
    """

    def __init__(self, config, folder: Path):
        import wandb

        known = folder / "logs" / "wandb-id"
        if not known.exists():
            known.write_text(secrets.token_hex(8))
        about = {"name": folder.name, "id": known.read_text(), "resume": "allow", "config": config.to_dict()}
        try:
            quiet = wandb.Settings(console="off", silent=True)
            self._run = wandb.init(project=config.wandb, dir=folder, settings=quiet, **about)
        except Exception as error:
            way_out = "wandb login, WANDB_MODE=offline, or an empty config.wandb"
            raise UserError(f"config.wandb {config.wandb}: {one_line(error)}; way out: {way_out}") from None
        self._kinds = {0: float, 1: wandb.Histogram, 3: wandb.Image}  # by the number of axes

    def write(self, step: int, values: dict) -> None:
        """Log numbers, several numbers, or pictures uint8 [H, W, 3], by name."""
        self._try(lambda run: run.log({name: self._kinds[np.ndim(x)](x) for name, x in values.items()}, step=step))

    def close(self, failed: bool) -> None:
        """Wait until all is sent."""
        self._try(lambda run: run.finish(exit_code=int(failed)))

    def _try(self, act) -> None:
        try:
            if self._run:
                act(self._run)
        except Exception as error:
            self._run = None
            print(f"warning: Weights & Biases gets no more of this run: {one_line(error)}", file=sys.stderr)
