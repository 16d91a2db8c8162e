"""Where pictures and captions come from: one file a data set, found by its name.

A source is a file with one function,

    open(split, data_dir, **options) -> (dataset, fingerprint)

split: `config.data.train` or `config.data.validation`. data_dir: folder of prepared sets. Each option is a
keyword-only parameter of the function, filled from the field of `config.data` of that name.
dataset: a `grain.MapDataset` of `{"image": uint8 [H, W, C], "caption": bytes}`; where an image has several captions
`"captions"`, a list of bytes, stands instead. fingerprint: another one when an image or a caption is another one.

`config.data.name` is `source` or `source/variant`, and `config.data.source` a file of one's own, if any:

    data.name = "captioned_digits/fine"                 # sources/captioned_digits.py, variant="fine"
    data.name, data.source = "flowers", "mine/flowers.py"
"""

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import grain
from ml_collections import ConfigDict

from t2i_jax.errors import UserError, one_line
from t2i_jax.ranges import sides


def open_split(data: Mapping | ConfigDict, split: str) -> tuple[grain.MapDataset, str]:
    """Open a split of the set that `config.data` names.

    Args:
      data: `name`, `data_dir`, perhaps `source`, and the options of the source.
      split: "train", "validation", ..., or part of one as TFDS writes it: "train[:55000]", "train[90%:]".

    Returns:
      What the source's `open` returns.

    Raises:
      UserError: no such source, set, variant or split; one that is empty, corrupt, or cannot be prepared here.
    """
    name, _, variant = data["name"].partition("/")
    open_source = _find(name, data.get("source", ""))
    given = dict(data.items()) | {"name": name} | ({"variant": variant} if variant else {})
    options, missing = {}, []
    for option in inspect.signature(open_source).parameters.values():
        if option.kind is inspect.Parameter.KEYWORD_ONLY:
            if option.name in given:
                options[option.name] = given[option.name]
            elif option.default is inspect.Parameter.empty:
                missing.append(f"config.data.{option.name}")
    if missing:
        raise UserError(f"data set {data['name']} needs {', '.join(missing)}; add it to the config")
    if variant and "variant" not in options:
        raise UserError(f"data set {name} has no variants; config.data.name {data['name']!r} names one")
    dataset, fingerprint = open_source(split, data["data_dir"], **options)
    if not len(dataset):
        raise UserError(f"split {split!r} of {data['name']} has no picture; name another part of the set")
    return dataset, fingerprint


def check_size(dataset: grain.MapDataset, data: Mapping | ConfigDict) -> None:
    """Whether the pictures of a split, of which the first is read, are as large as a config says.

    Args:
      dataset: of `open_split`.
      data: `name`, `image_size` and `channels`.

    Raises:
      UserError: they are not.
    """
    shape, asked = dataset[0]["image"].shape, (*sides(data["image_size"]), data["channels"])
    if shape != asked:
        raise UserError(
            f"{data['name']} has images {shape}, not {asked}; set config.data.image_size and config.data.channels"
        )


def _find(name: str, path: str) -> Callable:
    if path:
        return _load(Path(path).resolve())
    known = [module.name for module in iter_modules(__path__)]
    if name not in known:
        raise UserError(
            f"data set {name!r} is unknown; t2i_jax/data/sources has {', '.join(known)}; name a file of your own in"
            " config.data.source"
        )
    return import_module(f"{__name__}.{name}").open


@functools.cache
def _load(path: Path) -> Callable:
    """The `open` of a user's own file."""
    if not path.is_file():
        raise UserError(f"config.data.source {path} does not exist; name a python file that has a function `open`")
    module_name = f"t2i_jax_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise UserError(f"config.data.source {path} is no python file; its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and TFDS look there
    try:
        spec.loader.exec_module(module)
        return module.open
    except Exception as error:  # whatever is wrong in it
        line = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"config.data.source {path} cannot be loaded ({line}); it has a function `open`") from error
