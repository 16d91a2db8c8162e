"""Objectives, one file each: it exports `Task`, and its name is what `config.task` says."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from t2i_jax import models, runs
from t2i_jax.errors import UserError
from t2i_jax.tasks import init_from


class Phase(NamedTuple):
    """One part of a training step: a loss, the parameters that it trains, and the optimizer's settings.

    Ordinary training has one phase, a GAN two.

    Attributes:
      loss_fn: `(params, variables, batch, *, step, rngs, train) -> loss, (variables, metrics)`; `rngs` has the
        streams "dropout" and "noise".
      optim: settings such as `config.optim`.
      name: of its optimizer state, and of its metrics where there are several phases.
      trains: regular expression; the parameters in whose paths ("a/b/kernel") it is found are trained, and no
        others get a gradient. "" trains all.
    """

    loss_fn: Callable
    optim: ConfigDict
    name: str = "train"
    trains: str = ""


class Data(NamedTuple):
    """What a run is trained and scored on.

    Attributes:
      splits: Grain datasets "train" and "validation".
      transform: `(example, numpy Generator) -> {name: array}`.
    """

    splits: dict
    transform: Callable


class Evaluator(NamedTuple):
    """A measurement during training.

    Attributes:
      every: steps between two; the last step has one whatever this is.
      evaluate: `(params, variables) -> (scores, image grids)`, both by name.
    """

    every: int
    evaluate: Callable


class Overfit(NamedTuple):
    """What shows that a few examples have been learned by heart.

    Attributes:
      examples: what they are called: "captions", "pictures".
      array: of a batch, by which two of them differ.
      measure: `(params, variables, batch, key) -> float`, larger where more was learned.
      enough: from which value on the model can learn.
      wanted: how that reads.
      shown: format of a value and the number of examples.
      suspects: why it may not be reached, after learning rate and warm-up.
    """

    examples: str
    array: str
    measure: Callable
    enough: float
    wanted: str
    shown: str
    suspects: str


class Task:
    """One objective for one config: what a batch means, its phases, its evaluators and how its runs are opened.

    Attributes:
      config: of the run.
      model: that `config` names.
      pipeline: class that opens such a run.
      loss_fn: of a task with one phase, `(model, params, variables, batch, *, step, rngs, train, ...)`; its other
        keywords are the fields of `config.loss`. None where `phases` has more than one.
      trains: the parameters that this phase trains; see `Phase`.
      parts: fields of a config, and the class whose fields each of them takes, where it is there.

    Raises:
      UserError: no such model, or fields that it does not have.
    """

    pipeline: Callable
    loss_fn: Callable | None = None
    trains: str = ""
    parts: Mapping[str, type] = {}

    def __init__(self, config):
        self.config = config
        self.model = models.build(config)

    def check(self, folder: Path) -> None:
        """Find mistakes before minutes of preparation.

        Args:
          folder: of the run that is to be trained.

        Raises:
          UserError: a setting out of its range, or a file that is needed and missing.
        """

    def batch_spec(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch of so many examples, by name."""
        raise NotImplementedError

    def init(self, key, batch: dict) -> dict:
        """Freshly initialised variables, "params" among them; of the batch only shapes and types count."""
        raise NotImplementedError

    def phases(self) -> tuple[Phase, ...]:
        """The parts of a training step, in order."""
        return (Phase(self.loss(self.loss_fn), self.config.optim, trains=self.trains),)

    def prepare(self, folder: Path, parents: dict[str, Any]) -> Data:
        """The data; called once, before training.

        Args:
          folder: of the run; what sampling will need beside the weights is put there.
          parents: runs that this one builds on, opened, by name.

        Raises:
          UserError: the data cannot be had, or do not fit the config.
        """
        raise NotImplementedError

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """Params and variables to start from: released weights, k-means codebooks. After `prepare`."""
        del key
        return params, variables

    def from_run(self, params: dict, variables: dict) -> tuple[dict, dict]:
        """Params and variables with those of the run `config.init_from` where they fit. After `warm_start`."""
        return init_from.put(self.config.init_from, params, variables, {})

    def before_training(self, params: dict) -> None:
        """Whatever depends on the params that training goes on from, before the first batch is read.

        Args:
          params: after `from_run`, or of a checkpoint.
        """

    between_steps: Callable | None = None
    """`(params, variables, batch, key) -> (params, variables)`, every `config.codebook_reset_every` steps."""

    def evaluators(self) -> dict[str, Evaluator]:
        """What is measured during training. After `prepare`."""
        raise NotImplementedError

    overfit: Overfit | None = None
    """What `t2i doctor --overfit` measures, after `prepare`; None where it cannot."""

    @classmethod
    def open(cls, run: str | Path, recover: Callable | None = None) -> Any:
        """A run folder, opened for use.

        Args:
          run: its folder.
          recover: see `runs.read_weights`.

        Raises:
          UserError: it has no weights, or they do not fit this version.
        """
        return cls.pipeline(run, recover)

    def loss(self, loss_fn: Callable) -> Callable:
        """`loss_fn(model, ...)` with this model and the settings of `config.loss`."""
        return partial(loss_fn, self.model, **self.config.loss)


def find(name: str) -> type[Task]:
    """The class of an objective.

    Raises:
      UserError: there is no such file in tasks/.
    """
    files = [path for folder in __path__ for path in Path(folder).glob("[!_]*.py")]
    known = sorted(path.stem for path in files if "\nclass Task(" in path.read_text())
    if name not in known:
        raise UserError(f"task {name!r} is unknown to this version; it has {', '.join(known)}")
    return import_module(f"{__name__}.{name}").Task


def make(config) -> Task:
    """The objective of a config.

    Raises:
      UserError: no such task or model, or fields that do not fit.
    """
    return find(config.task)(config)


def open_run(run: str | Path, recover: Callable | None = None) -> Any:
    """A run folder of any objective, opened for use; see `Task.open`."""
    return find(runs.read_config(run).task).open(run, recover)
