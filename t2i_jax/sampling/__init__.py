"""Ways of sampling, one file each: it exports `Sampler`, a frozen dataclass whose fields are its settings.

`config.sampling = {"name": FILE, ...}` picks one, with the settings that differ from their defaults.
"""

import dataclasses
import re
from importlib import import_module
from numbers import Real
from pathlib import Path

from t2i_jax.errors import UserError
from t2i_jax.sampling.settings import Settings, check_names


def names() -> list[str]:
    """Files of this folder that export a `Sampler`."""
    files = sorted((path for folder in __path__ for path in Path(folder).glob("*.py")), key=lambda path: path.stem)
    exports = re.compile(r"^(Sampler = |class Sampler\b)", re.MULTILINE)  # read, because others here import jax
    return [path.stem for path in files if exports.search(path.read_text())]


def kind(name: str) -> type[Settings]:
    """The class of the samplers called `name`.

    Raises:
      UserError: there is none.
    """
    if name not in names():
        raise UserError(f"config.sampling.name {name!r} is unknown; choose {', '.join(names())}")
    return import_module(f"{__name__}.{name}").Sampler


def make(config) -> Settings:
    """The sampler that `config.sampling` describes: a `name`, and the settings that differ from their defaults.

    Raises:
      UserError: no name, an unknown one, a setting that it has not, or a value out of range.
    """
    fields = dict(config)
    if "name" not in fields:
        raise UserError(f"config.sampling has no name; choose {', '.join(names())}")
    sampler = kind(fields.pop("name"))
    check_names(sampler, fields)
    return sampler(**fields)


def settings() -> dict[str, dataclasses.Field]:
    """The settings of all samplers, by name; those that share a name share a flag."""
    return {field.name: field for name in names() for field in dataclasses.fields(kind(name))}


def check_guidance(sampler: Settings, caption_dropout: Real) -> None:
    """Whether guidance has a null caption to start from; one that was never trained is a random vector.

    Args:
      sampler: about to be used, or named by a config that is about to be trained.
      caption_dropout: fraction of training captions replaced by the null caption; 0 for converted weights.

    Raises:
      UserError: the sampler guides, and there were none.
    """
    if sampler.guided and not caption_dropout:
        raise UserError(
            f"guidance_scale {sampler.guidance_scale:g} compares with the null caption, which is never trained here"
            " (config.data.caption_dropout 0); set guidance_scale to 1, or train with caption_dropout above 0"
        )
