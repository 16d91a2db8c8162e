"""flax.linen modules: arrays in, arrays out. A model file exports `Model`; its file name is its name."""

from importlib import import_module

from ml_collections import FrozenConfigDict

from t2i_jax.errors import UserError


def build(config):
    """Build the model a config names.

    Args:
      config: a config with `model_name` (a file of this folder) and `model` (fields that differ from defaults).

    Returns:
      An unbound `flax.linen.Module`. Fields are frozen, so that lists become tuples and the module hashes.

    Raises:
      UserError: there is no such model, or it has no such field.
    """
    try:
        module = import_module(f"t2i_jax.models.{config.model_name}")
        return module.Model(**FrozenConfigDict(config.model))
    except (ImportError, AttributeError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"config.model does not fit this version's models/{config.model_name}: {line}") from error
