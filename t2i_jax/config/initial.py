"""What follows from the run that a config starts from: the sizes of its model and pictures, and its parents."""

import sys
from collections.abc import Collection
from pathlib import Path

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from t2i_jax import runs
from t2i_jax.config.sizes import POSITIONS
from t2i_jax.errors import UserError

OF_PICTURES = ("image_size", "channels")


def adopt(config: ConfigDict, typed: Collection[str], folder: Path) -> None:
    """Set, in place, what follows from the run `config.init_from`, but for fields that the user set; says what.

    `config.model` is as there, and its text vocabulary at least as large. Parents are the copies in that run, and
    pictures as large as there. A run that has begun holds all of this itself: then the other is not needed.

    Args:
      config: as `complete` makes it, and overridden.
      typed: dotted names of fields that the user set.
      folder: of the run that is to be trained.

    Raises:
      UserError: there is no such run, it is of another kind, or a field does not go with its image tokenizer.
    """
    begun = runs.has_begun(folder) and runs.read_config(folder).get("init_from") == config.init_from
    source = folder if begun else Path(config.init_from)
    run, changed = runs.read_config(source), []
    if run.model_name != config.model_name:
        raise UserError(
            f"config.init_from {config.init_from} holds a {run.model_name}, and this config is of a"
            f" {config.model_name}; name another run, or the config that it was trained with"
        )
    for path, value in flatten_dict(run.model.to_dict(), sep=".").items():
        *outer, field = path.split(".")
        node = config.model
        for name in outer:
            node = node.get(name, {})
        follows = node.get(field) is None or field in POSITIONS  # from something else; see `fill_sizes`
        if follows or f"model.{path}" in typed:
            continue
        if path == "text_vocab_size":
            value = max(value, node[field])
        if node[field] != value:
            changed.append(f"{path} {node[field]} -> {value}")
            with node.ignore_type():  # a number may become a pair
                node[field] = value
    pictures_follow = True
    for name, parent in config.get("parents", {}).items():
        if any(field.startswith(f"parents.{name}.") for field in typed):
            pictures_follow = False
        else:
            parent.config, parent.run = ConfigDict(runs.read_config(runs.parent_folder(source, name))), ""
    for field in OF_PICTURES if pictures_follow else ():
        if f"data.{field}" in typed and config.data[field] != run.data[field]:
            raise UserError(
                f"config.data.{field} is {config.data[field]}, but {config.init_from} has {run.data[field]}; leave"
                " the first out, or train another image tokenizer (--config.parents.tokenizer.run=RUN)"
            )
        config.data[field] = run.data[field]
    if changed and not begun:
        print(f"config.model as in {config.init_from}: {', '.join(changed)}", file=sys.stderr)
