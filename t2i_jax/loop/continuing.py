"""Whether a run may be trained on, and whether a finished one is what a config asks for."""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from t2i_jax import files, runs
from t2i_jax.errors import UserError
from t2i_jax.loop.optimizer import make_schedule

# Fields that came after runs were first kept: what those without them did.
LATER = {"matmul": "float32", "weight_bits": 32}


def check_config_change(folder: Path, config: ConfigDict, *, accept: bool = False) -> None:
    """Compare the config a run is to be trained with to the one it was started with, if it was.

    Args:
      folder: of the run.
      config: that it is to be trained with.
      accept: print the differences instead of raising.

    Raises:
      UserError: the configs differ, or the run's cannot be read.
    """
    path = folder / runs.CONFIG
    if not runs.has_begun(folder):
        return  # nothing was trained, and so there is nothing to protect
    try:
        own, asked = runs.unpack_config(path), json.loads(config.to_json())
        changes = differences(own, asked)
    except files.CorruptError as error:
        if not accept:
            raise UserError(f"{error}; give --accept-config-change to go on with the config named now") from None
        own, changes = {}, [str(error)]
    if changes and not accept:
        raise UserError(
            f"{folder} was started with another config ({'; '.join(changes)});"
            " choose another --workdir, or give --accept-config-change to go on with the new one"
        )
    for change in changes:
        print(f"warning: accepted config change: {change}", file=sys.stderr)
    for line in consequences(own, config, changes, next(iter(runs.checkpoint_steps(folder)), 0)):
        print(f"warning: {line}", file=sys.stderr)


def consequences(own: dict, config: ConfigDict, changes: list[str], step: int) -> Iterator[str]:
    """What changes of a config mean for a run that goes on, each in a line.

    What of its state does not fit the new config is said where the checkpoint is read.

    Args:
      own: the config that the run was trained with.
      config: that it is to be trained with.
      changes: see `differences`.
      step: of its newest checkpoint.
    """

    def changed(*starts):
        return any(change.startswith(starts) for change in changes)

    if changed("batch_size:"):
        yield (
            "the place in the data is counted in batches: of another size, some examples of this epoch are read"
            " twice or not at all"
        )
    if changed("data.", "seed:"):
        yield (
            f"the place in the data stays at batch {step}: in another set or order, some examples of this epoch are"
            " read twice or not at all"
        )
    if changed("steps:", "optim."):
        with suppress(UserError, KeyError, TypeError):  # an own config that this version cannot read
            rates = [float(make_schedule(x["optim"], x["steps"])(step)) for x in (own, config)]
            yield f"the learning rate goes on at step {step} of the new schedule: {rates[0]:.3g} -> {rates[1]:.3g}"
    if changed("init_from:"):
        yield "config.init_from is of no effect: the run has weights of its own"


def check_new(folder: Path) -> None:
    """Whether a run without a checkpoint has never been trained: a checkpoint is written before weights are.

    Raises:
      UserError: it has weights.
    """
    if (folder / runs.WEIGHTS).exists():
        raise UserError(
            f"{folder / runs.WEIGHTS} is there, but no checkpoint to continue from; restore"
            f" {folder / runs.CHECKPOINTS}, or choose another --workdir to train from the start"
        )


def warn_of_newer_weights(folder: Path, step: int) -> None:
    """Say so where the weights have seen more steps than the checkpoint that a run continues from."""
    with suppress(files.CorruptError):
        newer = runs.load_weights(folder / runs.WEIGHTS)[2]
        if newer > step:
            print(
                f"warning: the weights are of step {newer}, the newest good checkpoint is of step {step}; the steps"
                " between are trained again",
                file=sys.stderr,
            )


def differences(old: dict, new: dict) -> list[str]:
    """`field: old -> new` for every field in which two configs differ; an older one may lack `LATER`."""
    old, new = (flatten_dict(config, sep=".") for config in (old, new))
    old |= {name: LATER[end] for name in new.keys() - old.keys() if (end := name.rsplit(".")[-1]) in LATER}
    return [
        f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "absent") != new.get(name, "absent")
    ]


def check_same(folder: Path, config: ConfigDict, *, accept: bool = False) -> None:
    """Whether a finished run is the one that a config asks for; where its data set lies does not matter.

    Of a run that was converted, the task and the model alone count: it was not trained here. What size of pictures
    it was converted for does not: its convolutions read others as well.

    Args:
      folder: of the run.
      config: that is asked for.
      accept: print the differences instead of raising.

    Raises:
      UserError: it was trained with another config.
    """
    own = runs.read_written_config(folder / runs.CONFIG)
    changes = differences(own, json.loads(config.to_json()))
    changes = [change for change in changes if not change.startswith("data.data_dir:")]
    if "converted_from" in own:
        changes = [change for change in changes if change.startswith(("task:", "model_name:", "model."))]
        changes = [change for change in changes if not change.startswith("model.image_size:")]
    if changes and not accept:
        raise UserError(
            f"{folder} was trained with another config than the one named for it ({'; '.join(changes)}); name"
            " another run, change it back, or give --accept-config-change to use the run as it is"
        )
    for change in changes:
        print(f"warning: {folder} is used as it is: {change}", file=sys.stderr)


def is_finished(folder: str | Path, config: ConfigDict) -> bool:
    """Whether a run has been trained to `config.steps` and scored; says which of its parts are not complete."""
    folder = Path(folder)
    try:
        step = runs.load_weights(folder / runs.WEIGHTS)[2]
        converted = "converted_from" in files.read_json(folder / runs.CONFIG)
        if "text_vocab_size" in config.model and not converted:
            files.read_json(folder / runs.TEXT_TOKENIZER)
        for name in runs.parents(config, folder):
            copy = runs.parent_folder(folder, name)
            files.read_json(copy / runs.CONFIG)
            runs.load_weights(copy / runs.WEIGHTS)
        if step < config.steps or converted:
            return step >= config.steps
        return files.read_json(folder / runs.SCORES).get("step", 0) >= config.steps
    except files.CorruptError as error:
        if runs.checkpoint_steps(folder):
            print(f"warning: {error}", file=sys.stderr)
        return False
