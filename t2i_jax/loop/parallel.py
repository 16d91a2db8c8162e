"""The ways of sharing a step among devices, by `config.parallel`."""

from t2i_jax.errors import UserError
from t2i_jax.loop.pmap import PmapSetup
from t2i_jax.loop.setup import Setup
from t2i_jax.tasks import Task

KINDS = {"jit": Setup, "pmap": PmapSetup}


def kind(config) -> type[Setup]:
    """The class that trains in the way that `config.parallel` names.

    Raises:
      UserError: an unknown way.
    """
    if config.parallel not in KINDS:
        raise UserError(f"config.parallel {config.parallel!r} is unknown; choose {', '.join(KINDS)}")
    return KINDS[config.parallel]


def make(task: Task) -> Setup:
    """What trains a task; see `kind` and `Setup`."""
    return kind(task.config)(task)
