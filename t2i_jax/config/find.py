"""Where config files lie, which variants they have, and how they are run."""

import ast
import importlib
import re
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from t2i_jax.errors import UserError, near_miss

PACKAGE = Path(__file__).parents[1]


def packaged_folder() -> Path:
    """Folder of the configs that come with the package: inside it once installed, beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def variants_of(path: Path) -> list[str]:
    """Names of a config file's variants, read without running it; [] where `get_config` takes none.

    They are its functions without parameters, but for those whose names begin with "_".

    Raises:
      UserError: the file is no Python.
    """
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no Python file: {error}") from None
    functions = {node.name: node.args.args for node in body if isinstance(node, ast.FunctionDef)}
    if not functions.get("get_config"):
        return []
    return [name for name, parameters in functions.items() if not (parameters or name.startswith("_"))]


def known_configs(folder: str | Path | None = None) -> list[str]:
    """Every experiment: `NAME:VARIANT` of the package, or `FOLDER/NAME.py:VARIANT` of a folder."""
    paths = sorted((packaged_folder() if folder is None else Path(folder)).glob("*.py"))
    return [f"{path.stem if folder is None else path}:{variant}" for path in paths for variant in variants_of(path)]


def find_config(name: str) -> tuple[Path, str]:
    """The file and the variant that a name means.

    Args:
      name: `NAME` of the package or `PATH.py`, and `:VARIANT` after it where the default is not meant.

    Returns:
      Path of the file, and the variant; "" for the file's default.

    Raises:
      UserError: there is no such file or variant; it names those that there are.
    """
    first, colon, variant = re.fullmatch(r"(.*\.py|[^:]*)(:?)(.*)", name, re.DOTALL).groups()
    if first.endswith(".py"):
        path = Path(first)
        first = str(path)
        problem = None
        if not path.is_file():
            problem = f"config {first!r} does not exist"
        elif not re.search(r"^def get_config\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            problem = f"{path} is no experiment: it has no get_config"
        if problem:
            raise UserError(f"{problem}; {_choice(first, known_configs(path.parent) or known_configs())}")
    else:
        known = known_configs()
        if first not in [each.partition(":")[0] for each in known]:
            raise UserError(f"there is no config {first!r}; {_choice(first, known)}, or name a file, PATH.py")
        path = packaged_folder() / f"{first}.py"
    variants = variants_of(path)
    if colon and variant not in variants:
        known = ", ".join(f"{first}:{variant}" for variant in variants) or "none: leave it out"
        raise UserError(f"{first} has no variant {variant!r}; choose one of {known}")
    return path, variant


def _choice(name: str, known: list[str]) -> str:
    files = list(dict.fromkeys(each.rpartition(":")[0] for each in known))
    near = near_miss(name, files)
    return f"{near}{' ' * bool(near)}choose one of {', '.join(files)}"


def read_config(name: str) -> ConfigDict:
    """Run the config file that `name` means (see `find_config`), and return what its `get_config` does.

    Raises:
      UserError: there is no such file or variant, or running it fails.
    """
    path, variant = find_config(name)
    try:
        with configs_of(path.resolve().parent):
            spec = spec_from_file_location(f"configs.{path.stem}", path.resolve())
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            config = module.get_config(variant) if variant else module.get_config()
    except Exception as error:  # whatever the file of a user does
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "; a config imports its siblings as in `from configs import base`" * isinstance(error, ImportError)
        raise UserError(f"{path} cannot be run ({reason}){hint}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {path} returns a {type(config).__name__}, no ml_collections.ConfigDict")
    return config


@contextmanager
def configs_of(folder: Path):
    """Within it, `from configs import NAME` imports a file of this folder, or else one of the package."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "configs"}
    package = ModuleType("configs")
    package.__path__ = [str(folder), str(packaged_folder())]
    sys.modules["configs"] = package
    importlib.invalidate_caches()  # files may be a moment old
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
            del sys.modules[name]
        sys.modules.update(before)
