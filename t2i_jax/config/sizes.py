"""Sizes that follow from data, a tokenizer or released weights: filled in, so that each is set in one place."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from t2i_jax import models
from t2i_jax.config.complete import Required, fields_of
from t2i_jax.convert import hub, weights
from t2i_jax.errors import UserError

POSITIONS = {"max_positions": "text_len", "positions": "num_tokens"}  # of a part <- what it must reach


class Size(NamedTuple):
    """A field of `config.model` that follows from something else.

    Attributes:
      path: of the field in `config.model`.
      value: that it has to have.
      origin: what it follows from.
      least: a larger value is as good.
    """

    path: tuple[str, ...]
    value: Any
    origin: str
    least: bool = False


def fill_sizes(
    config: ConfigDict, typed: Collection[str] = (), *, name: str = "config", fetch: bool = False
) -> ConfigDict:
    """Set, in place, sizes of a config's model that follow from its data, its tokenizer and its released weights.

    - `image_size` and `channels` of pictures, `text_len`: from `config.data`.
    - `codebook_size`, `num_tokens`, `grid`: from the tokenizer's own config, filled in before.
    - a part's positions: from the text's and the picture's lengths.
    - a part's other sizes, and `text_vocab_size`: from the `config.json` of `config.PART_weights`, where that lies
      on this machine or, if asked for, can be fetched. A text may be no longer than its positions.

    Args:
      config: as `complete` makes it.
      typed: dotted names of fields that the user set; what follows must agree with them.
      name: of the config, for messages.
      fetch: from the hub what is not on this machine, where that can be reached.

    Returns:
      The same config.

    Raises:
      UserError: a field was set to another value than follows, sizes of a model do not fit each other, a tokenizer
        is for pictures of another size, or released weights cannot be read.
    """
    for parent, entry in config.get("parents", {}).items():
        own, path = entry.config, f"parents.{parent}.config."
        inside = [field.removeprefix(path) for field in typed if field.startswith(path)]
        fill_sizes(own, inside, name=f"{name}.{path[:-1]}", fetch=fetch)
        if hasattr(models.find(own.model_name).Model, "layout"):
            _check_same_pictures(own, config, f"{name}.{path}data.image_size", f"{name}.data.image_size")
    defaults = fields_of(models.find(config.model_name).Model)
    for size in _sizes(config, name, fetch):
        *outer, field = size.path
        node, dotted = config.model, ".".join(("model", *size.path))
        for key in outer:
            node = node[key]
        # What has no default was set by somebody, though not by a flag; a vocabulary's size only limits it.
        required = not outer and isinstance(defaults[field], Required) and field != "text_vocab_size"
        set_here = required or dotted in typed
        old = node[field]
        fits = old == size.value or (size.least and old is not None and old >= size.value)
        if set_here and old is not None and not fits:
            raise UserError(
                f"{name}.{dotted} is {old}, but {size.value} follows from {size.origin}; leave the first out, or"
                " change the second"
            )
        if not (set_here and fits):
            with node.ignore_type():  # a number may become a pair
                node[field] = size.value
    _token_sizes(config, f"{name}.model")  # refuses sizes that do not fit each other
    return config


def _check_same_pictures(tokenizer: ConfigDict, config: ConfigDict, own: str, asked: str):
    size, other = tokenizer.data.get("image_size"), config.data.get("image_size")
    if size and other and size != other:
        raise UserError(f"{own} is {size}, but {asked} is {other}; set the second alone, which both follow")


def _sizes(config: ConfigDict, name: str, fetch: bool) -> Iterator[Size]:
    """What follows, each field after those that it depends on."""
    model, data = config.model, config.data
    for field in ("image_size", "channels", "text_len"):
        if field in model and field in data:
            yield Size((field,), data[field], f"{name}.data.{field} {data[field]}")
    for parent, entry in config.get("parents", {}).items():
        origin = f"{name}.parents.{parent}.config.model"
        for field, value in _token_sizes(entry.config, origin).items():
            if field in model:
                yield Size((field,), value, origin)
    for part, cls in getattr(models.find(config.model_name), "PARTS", {}).items():
        for field, length in POSITIONS.items():
            if field in model[part] and length in model:
                yield Size((part, field), model[length], f"{name}.model.{length} {model[length]}", least=True)
        source = config.get(f"{part}_weights")
        if source and not config.get("init_from"):  # else they are not read
            yield from _released_sizes(part, cls, source, model, name, fetch)


def _token_sizes(tokenizer: ConfigDict, origin: str) -> dict[str, Any]:
    """`codebook_size`, `num_tokens` and `grid` by a tokenizer's config; nothing by that of another model."""
    try:
        model = models.build(tokenizer)
        if not hasattr(model, "layout"):
            return {}
        count, width = model.num_tokens, model.layout[-1].width
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{origin}: {str(error).splitlines()[0]}") from None
    # Several grids, from coarse to fine, are laid out in rows as long as the finest has.
    return {"codebook_size": model.codebook_size, "num_tokens": count, "grid": (count // width, width)}


def _released_sizes(part: str, cls: type, source: str, model: ConfigDict, name: str, fetch: bool) -> Iterator[Size]:
    """Sizes of a part by the config.json of released weights; none where that cannot be had."""
    field = f"{name}.{part}_weights"
    try:
        path = _find_config(source, fetch)
        if path is None:
            return
        format_ = import_module(f"t2i_jax.convert.{cls.__module__.rpartition('.')[2]}")
        found = format_.read_sizes(weights.read_object(path), str(path))
    except UserError as error:
        raise UserError(f"{error}; or train from scratch: {field}=''") from None
    origin = f"{field} ({path})"
    for size, value in found.items():
        if size in model[part] and size not in POSITIONS:
            yield Size((part, size), value, origin)
    longest = found.get("max_positions")
    if longest and model.text_len > longest:
        raise UserError(
            f"{name}.data.text_len is {model.text_len}, but {origin} reads texts of at most {longest} word pieces;"
            " lower the first"
        )
    if part == "encoder" and "text_vocab_size" in model:
        yield Size(("text_vocab_size",), found["vocab_size"], origin)


def _find_config(source: str, fetch: bool) -> Path | None:
    path = hub.find_beside(source, ("config.json",), hub.find_here)
    if path is None and fetch:
        with suppress(UserError):  # the weights cannot be had either, which is said where they are read
            path = hub.find_beside(source, ("config.json",))
    return path
