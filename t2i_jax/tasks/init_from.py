"""A run as what another one starts from: its weights where they fit, its text vocabulary grown by new words."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from tokenizers import Tokenizer

from t2i_jax import files, hosts, runs
from t2i_jax.data import text, vocabularies
from t2i_jax.errors import UserError

SHOWN = 6  # names in a line
LEARNED = ("kernel", "embedding")  # beside biases and scales, which tell little


def stamp(config, folder: Path) -> None:
    """Put the digest of the weights that a run starts from, or has started from, into its config.

    Raises:
      UserError: there are no such weights, or not those that the config asks for.
    """
    if not config.init_from:
        return
    if runs.has_begun(folder):  # what it started from need not be there any more
        with suppress(files.CorruptError):  # said where configs are compared
            config.init_from_digest = files.read_json(folder / runs.CONFIG).get("init_from_digest", "")
        return
    digest = runs.read_weights(config.init_from)[3]
    if config.init_from_digest not in ("", digest):
        raise UserError(
            f"config.init_from_digest is {config.init_from_digest}, but the weights of {config.init_from} have"
            f" {digest}; leave the first out, or name another run"
        )
    config.init_from_digest = digest


def check(task, folder: Path) -> None:
    """Whether a run that has not started can start from the one that its config names.

    Raises:
      UserError: that one is of another kind, cannot be read, or has no kernel and no table that fits.
    """
    config = task.config
    if not config.init_from or runs.has_begun(folder):
        return
    run = runs.read_config(config.init_from)
    theirs, ours = (f"{kind.task} by a {kind.model_name}" for kind in (run, config))
    if theirs != ours:
        raise UserError(f"config.init_from {config.init_from} learned to {theirs}, not to {ours}; name another run")
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in task.batch_spec(1).items()}
    shapes = flatten_dict(jax.eval_shape(task.init, jax.random.key(0), batch)["params"])
    there = flatten_dict(runs.read_weights(config.init_from)[0])
    if not any(path in there and there[path].shape == x.shape for path, x in shapes.items() if path[-1] in LEARNED):
        raise UserError(
            f"nothing of config.init_from {config.init_from} fits this model: no kernel and no embedding has the"
            " same name and shape; set config.model as there, or leave init_from out"
        )


def grown_vocabulary(config, captions: Iterable[str]) -> Tokenizer:
    """The text tokenizer of the run `config.init_from` with the words of captions that it lacks; says how many.

    Raises:
      UserError: it cannot be read, or has more pieces than `config.model.text_vocab_size`.
    """
    old = text.read_tokenizer(Path(config.init_from) / runs.TEXT_TOKENIZER)
    grown, left = vocabularies.grow(old, captions, config.model.text_vocab_size)
    before, after = (tokenizer.get_vocab_size() for tokenizer in (old, grown))
    said = f"init_from {config.init_from}: text vocabulary {before} -> {after} ({after - before} new words)"
    if left:
        said += f"; {left} more are read as before: config.model.text_vocab_size holds no more than {after}"
    print(said, file=sys.stderr)
    return grown


def put(
    run: str | Path, params: dict, variables: dict, tables: Mapping[str, jax.Array | None]
) -> tuple[dict, dict]:
    """Params and variables with those of a run where name and shape are the same; says which were taken.

    Args:
      run: its folder.
      tables: params that are settled otherwise, by path; None for one that starts anew.

    Raises:
      UserError: the run has no weights.
    """
    own, states, step, _ = runs.read_weights(run)
    old = flatten_dict({"params": own, "variables": states}, sep="/")
    new = flatten_dict({"params": params, "variables": variables}, sep="/")
    found = {path: old[path] for path, x in new.items() if path in old and old[path].shape == x.shape}
    found |= {f"params/{path}": x for path, x in tables.items()}
    taken = {path: jnp.asarray(x, new[path].dtype) for path, x in found.items() if x is not None}
    said = f"init_from {run} (step {step}): {len(taken)} of {len(new)} arrays taken"
    if anew := sorted(path.partition("/")[2] for path in new.keys() - taken.keys()):
        more = f" and {len(anew) - SHOWN} more" if anew[SHOWN:] else ""
        said += f"; starting anew: {', '.join(anew[:SHOWN])}{more}"
    if hosts.is_first():
        print(said, file=sys.stderr)
    tree = unflatten_dict(new | taken, sep="/")
    return tree["params"], tree.get("variables", {})


def tables_of(config, model, params: dict, text_tokenizer: Path, image_tokenizer: str) -> dict:
    """What `put` is to settle of a model that reads captions and image tokens.

    Word pieces have the rows that they had. A new word starts as the mean of the pieces that it was read as; where
    it was the unknown word, of all words. Further positions of longer captions start anew, and where images were in
    other tokens, so does what stands for these.

    Args:
      config: of the run that starts.
      model: names its `text_tables` and `image_tables`.
      params: freshly initialised.
      text_tokenizer: file of the run that starts.
      image_tokenizer: digest of its image tokenizer.

    Raises:
      UserError: the run `config.init_from` has no weights, tokenizers or config.
    """
    run = Path(config.init_from)
    own, new = flatten_dict(runs.read_weights(run)[0], sep="/"), flatten_dict(params, sep="/")
    anew = ()
    if runs.read_weights(runs.parent_folder(run, "tokenizer"))[3] != image_tokenizer:
        anew = [path for path in model.image_tables if path in new]
        if hosts.is_first():
            print(f"init_from {run}: its images were in other tokens; their tables start anew", file=sys.stderr)
    before, after = (text.read_tokenizer(path) for path in (run / runs.TEXT_TOKENIZER, text_tokenizer))
    known, parts = before.get_vocab_size(), vocabularies.parts_of_new(before, after)
    sizes = runs.read_config(run).model.text_vocab_size, config.model.text_vocab_size
    tables = dict.fromkeys(anew)
    for path, axis in model.text_tables:
        if path not in new or path not in own:  # a prior without captions
            continue
        old, rows = np.moveaxis(own[path], axis, 0), jnp.moveaxis(new[path], axis, 0)
        if old.shape[1:] != rows.shape[1:]:
            continue
        rows = rows.at[:known].set(old[:known])
        if parts:
            rows = rows.at[np.array([*parts])].set(np.stack([old[ids].mean(0) for ids in parts.values()]))
        if path not in anew and len(old) - sizes[0] == len(rows) - sizes[1]:
            rows = rows.at[sizes[1] :].set(old[sizes[0] :])  # image tokens that lie in the same table
        tables[path] = jnp.moveaxis(rows, 0, axis)
    for path in new.keys() & own.keys() - tables.keys():
        old, rows = own[path], new[path]
        if path.endswith("position_embed/embedding") and len(old) < len(rows) and old.shape[1:] == rows.shape[1:]:
            tables[path] = rows.at[: len(old)].set(old)
    return tables
