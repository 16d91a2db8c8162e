"""Flags of train.py: a config file with a variant, and overrides of its fields; errors in one line."""

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from t2i_jax.errors import UserError

config_flags.DEFINE_config_file("config", None, "configs/NAME.py or configs/NAME.py:VARIANT.")
flags.DEFINE_string("workdir", None, "Run folder; runs/<config.name> if not given.")
flags.DEFINE_bool("accept_config_change", False, "Continue a run that was started with another config.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; what is wrong with it is one line on stderr and exit code 2."""
    try:
        argv = [f"--accept_config_change{a[22:]}" if a[:22] == "--accept-config-change" else a for a in argv]
        check_config_path(argv)
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is None:
            raise UserError(f"--config is missing; choose one of {', '.join(known_configs())}")
        if len(rest) > 1:
            raise UserError(f"{rest[1]!r} is no flag; options start with --, as in --config.steps=100")
        return rest
    except (KeyError, AttributeError) as error:  # a field that the config does not have
        message = _name_near_miss(str(error))
    except (UserError, flags.Error, TypeError, ValueError, OSError) as error:
        message = str(error).strip().replace("\n", " ")
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(2)


def _name_near_miss(message: str) -> str:
    field = re.search(r"lookup: ([\w.]+)", message) or re.search(r"(\w+)", message)
    near_miss = re.search(r'Did you mean "(\w+)"', message)
    line = f"the config has no field {field[1] if field else message!r}"
    return f"{line}; did you mean {near_miss[1]!r}?" if near_miss else f"{line}; see its file for those it has"


def load_config(name: str, overrides: Sequence[str] = ()):
    """The config of `configs/NAME.py` or `configs/NAME.py:VARIANT`, as train.py would read it; runs that file.

    Args:
      name: of the file and its variant.
      overrides: `--config.FIELD=VALUE`.

    Raises:
      UserError: there is no such file, variant or field.
    """
    check_config_path(["--config", name])
    values, argv = flags.FlagValues(), ["t2i", f"--config={name}", *overrides]
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    argv_before, sys.argv = sys.argv, argv  # where config_flags looks for overrides
    sys.path.insert(0, str(Path(name).resolve().parents[1]))  # config files import their siblings
    try:
        values(argv)
    except (KeyError, AttributeError) as error:  # a field that the config does not have
        raise UserError(_name_near_miss(str(error))) from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    finally:
        sys.path.pop(0)
        sys.argv = argv_before
    return values.config


def known_configs(folder: str | Path = "configs") -> list[str]:
    """`configs/NAME.py:VARIANT` for every experiment in a folder, read without running any of them."""
    names = []
    for path in sorted(Path(folder).glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VARIANTS":
                names += [f"{path}:{variant}" for variant in ast.literal_eval(node.value)]
    return names


def check_config_path(argv: list[str]) -> None:
    """Look whether the config and its variant exist.

    Raises:
      UserError: they do not; names those that do.
    """
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") != "config":
            continue
        value = value if equals else "".join(argv[i + 1 : i + 2])
        path, _, variant = value.partition(":")
        path, folder = str(Path(path)), Path(path).parent
        known = ", ".join(known_configs(folder) or known_configs())
        if not Path(path).is_file():
            raise UserError(f"config {path!r} does not exist; choose one of {known}")
        if "def get_config(" not in Path(path).read_text():
            raise UserError(f"{path} is no experiment: it has no get_config; choose one of {known}")
        variants = [name for name in known_configs(folder) if name.startswith(f"{path}:")]
        if variant and f"{path}:{variant}" not in variants:
            raise UserError(f"{path} has no variant {variant!r}; choose one of {', '.join(variants)}")
