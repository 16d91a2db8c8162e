"""Configs: found by name or path, completed from defaults, overridden, and sizes that follow filled in."""

from t2i_jax.config.complete import complete
from t2i_jax.config.find import known_configs
from t2i_jax.config.load import load_config
from t2i_jax.config.sizes import fill_sizes

__all__ = ["complete", "fill_sizes", "known_configs", "load_config"]
