"""flax.linen modules: arrays in, arrays out. A model file exports `Model`; its file name is its name."""

from importlib import import_module

from ml_collections import FrozenConfigDict


def build(config):
    """Build the model a config names.

    Args:
      config: a config with `model_name` (a file of this folder) and `model` (fields that differ from defaults).

    Returns:
      An unbound `flax.linen.Module`. Fields are frozen, so that lists become tuples and the module hashes.
    """
    return import_module(f"t2i_jax.models.{config.model_name}").Model(**FrozenConfigDict(config.model))
