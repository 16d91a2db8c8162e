"""Run folders made of weights that were trained elsewhere."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from t2i_jax import files, models, runs
from t2i_jax.errors import UserError


def shapes_of(config: ConfigDict, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Shapes of the params of the model that `config` names, by name, "/" between its parts.

    Args:
      config: `model_name` and `model`.
      inputs: what the model is called with; only their shapes count.

    Raises:
      UserError: there is no such model.
    """
    model = models.build(config)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    except ValueError as error:  # models say so where their fields do not fit each other
        raise UserError(f"the sizes of the files do not fit a {config['model_name']}: {error}") from None
    return {name: leaf.shape for name, leaf in flatten_dict(params, sep="/").items()}


def write_run(
    folder: str | Path,
    config: ConfigDict,
    params: dict,
    add: Callable[[Path], None] = lambda folder: None,
    variables: dict | None = None,
) -> None:
    """Write a run that counts as finished; it appears atomically.

    Args:
      folder: must not exist yet.
      config: of the run; its `converted_from` says that it was not trained here.
      params: nested, or by name, "/" between its parts.
      add: puts what else belongs to the run into a folder.
      variables: the model's other collections, where it has some.

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    check_free(folder)
    with files.replacing(folder) as partial:
        runs.write_config(partial, config)
        runs.write_weights(partial, unflatten_dict(params, sep="/"), variables or {}, config["steps"])
        add(partial)


def check_free(folder: Path) -> None:
    """Whether a run can be put there.

    Raises:
      UserError: something is there already.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; name a folder that does not exist yet")
