"""flax.linen modules: arrays in, arrays out. A model file exports `Model`; its file name is its name."""

from importlib import import_module
from types import ModuleType

from ml_collections import FrozenConfigDict

from t2i_jax.errors import UserError

DTYPES = ("float32", "bfloat16")  # that models compute in


def find(name: str) -> ModuleType:
    """The file of a model.

    Raises:
      UserError: there is none.
    """
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise UserError(f"config.model_name {name!r} names no model: {error}") from None


def build(config):
    """Build the model a config names.

    Args:
      config: a config with `model_name` (a file of this folder) and `model` (fields that differ from defaults).

    Returns:
      An unbound `flax.linen.Module`. Fields are frozen, so that lists become tuples and the module hashes.

    Raises:
      UserError: there is no such model, or it has no such field, or computes in no such type.
    """
    if (dtype := config.model.get("dtype", DTYPES[0])) not in DTYPES:
        raise UserError(f"config.model.dtype is {dtype!r}; it is {' or '.join(DTYPES)}")
    try:
        return find(config.model_name).Model(**FrozenConfigDict(config.model))
    except (AttributeError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"config.model does not fit this version's models/{config.model_name}: {line}") from error
