"""A config as a command line says it: its name, and overrides of its fields."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from t2i_jax import ranges
from t2i_jax.config.complete import complete, no_field
from t2i_jax.config.find import read_config
from t2i_jax.config.initial import adopt
from t2i_jax.config.sizes import fill_sizes
from t2i_jax.errors import UserError, one_line


def load_config(
    name: str, overrides: Sequence[str] = (), *, fetch: bool = False, workdir: str | None = None
) -> ConfigDict:
    """An experiment with all its fields: completed, overridden, sizes that follow filled in, locked.

    Args:
      name: `NAME` of the package or `PATH.py`, and `:VARIANT` after it where the default is not meant. The file is
        run.
      overrides: `--config.FIELD=VALUE`.
      fetch: see `fill_sizes`.
      workdir: folder of the run that is to be trained; None for runs/NAME.

    Raises:
      UserError: there is no such file, variant or field, or a value does not fit.
    """
    config = complete(read_config(name))
    # Of its own: the flags of the process belong to whoever called this.
    values, argv = flags.FlagValues(), ["t2i", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except (KeyError, AttributeError) as error:  # a field that the config does not have
        raise UserError(_unknown_field(config, overrides) or one_line(error)) from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(one_line(error)) from None
    if rest:
        raise UserError(f"{rest[0]!r} is no flag; options start with --, as in --config.steps=100")
    ranges.check_config(values.config)
    config, typed = values.config, values["config"].override_values
    _squares_to_numbers(config, "config")
    if config.get("init_from"):
        adopt(config, typed, Path(workdir or Path("runs", config.name)))
    return fill_sizes(config, typed=typed, fetch=fetch)


def _squares_to_numbers(config: ConfigDict, path: str) -> None:
    """Set each `image_size`, of parents too, as `ranges.as_image_size` has it; that of a model may follow."""
    for name, part in (("data", config.data), ("model", config.model)):
        if "image_size" in part and (name == "data" or part.image_size is not None):
            size = ranges.as_image_size(part.image_size, f"{path}.{name}.image_size")
            with part.ignore_type():  # a pair may become a number
                part.image_size = size
    for name, parent in config.get("parents", {}).items():
        _squares_to_numbers(parent.config, f"{path}.parents.{name}.config")


def _unknown_field(config: ConfigDict, overrides: Sequence[str]) -> str:
    for option in overrides:
        node, path = config, "config"
        for name in option.partition("=")[0].split(".")[1:]:
            known = node if isinstance(node, ConfigDict) else ()
            if name not in known:
                return no_field(path, name, known)
            node, path = node[name], f"{path}.{name}"
    return ""
