"""A tree of arrays in a folder, written and read by Orbax, each host its own part."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from t2i_jax.errors import UserError

COMPARED_AT_ONCE = 2**30  # bytes that `check_equal` reads into the host's memory at a time


def write(folder: Path, tree) -> None:
    """Write this host's part of a tree into an empty folder; `finish` completes it."""
    _orbax().save(epath.Path(folder.absolute()), args=ocp.args.PyTreeSave(tree))


def finish(folder: Path) -> None:
    """Merge what the hosts have written; for one host, after all of them are done."""
    _orbax().finalize(epath.Path(folder.absolute()))


def read(folder: Path, shapes):
    """The tree that was written, on the devices.

    Args:
      folder: a finished one.
      shapes: arrays or `jax.ShapeDtypeStruct` with the shapes, types and shardings to read.
    """
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, shapes)
    return _read(folder, shapes, ocp.checkpoint_utils.construct_restore_args(shapes))


def read_parts(folder: Path, choose) -> dict:
    """Some branches of the tree that was written, as nested dicts of numpy arrays.

    Args:
      folder: a finished one.
      choose: from the tree's dict, without its values, to the names of the branches to read.
    """
    tree = _metadata(folder)
    names = choose(tree)
    wanted = {
        name: branch if name in names else jax.tree.map(lambda _: ocp.PLACEHOLDER, branch)
        for name, branch in tree.items()
    }
    found = _read(folder, wanted, _on_host(wanted))
    return {name: found.get(name) or {} for name in names}


def check_equal(folder: Path, tree) -> None:
    """Compare what was written bit by bit with this host's part of a tree, in the host's memory, not the devices'.

    Raises:
      OSError: names the first array that differs.
    """
    leaves, structure = jax.tree.flatten(tree)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]
    for chosen in _groups_of(leaves):
        wanted = structure.unflatten(leaf if i in chosen else ocp.PLACEHOLDER for i, leaf in enumerate(leaves))
        found = jax.tree.leaves(_read(folder, wanted, _on_host(wanted)))
        for i in chosen:
            for shard in leaves[i].addressable_shards:
                if not np.array_equal(_bits(shard.data), _bits(found[i][shard.index])):
                    raise OSError(f"{names[i]} does not read back as it was written")


def check_fits(folder: Path, shapes) -> None:
    """Compare names, shapes and types, because Orbax casts types without a word.

    Raises:
      UserError: they differ; names the first that does, and counts by part of the state.
    """
    leaves = jax.tree.leaves(_metadata(folder), is_leaf=lambda x: hasattr(x, "shape"))
    there = {leaf.name: _shown(leaf) for leaf in leaves if hasattr(leaf, "shape")}
    here = {
        jax.tree_util.keystr(path, simple=True, separator="."): _shown(leaf)
        for path, leaf in jax.tree.leaves_with_path(shapes)
    }
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if names:
        name, parts = names[0], Counter(name.partition(".")[0] for name in names)
        of = ", ".join(f"{count} of {part}" for part, count in parts.items())
        raise UserError(
            f"{folder.parent} is complete but does not fit this config: {name} is {there.get(name, 'absent')} there"
            f" and {here.get(name, 'absent')} here (differing: {of}); go back to the config it was saved with, or"
            " start another --workdir from this run's weights with --config.init_from"
        )


def _orbax() -> ocp.PyTreeCheckpointHandler:
    return ocp.PyTreeCheckpointHandler()


def _read(folder: Path, item, restore_args):
    arguments = ocp.args.PyTreeRestore(item, restore_args=restore_args)
    return _orbax().restore(epath.Path(folder.absolute()), args=arguments)


def _metadata(folder: Path) -> dict:
    """Nested dicts of shapes and types."""
    return _orbax().metadata(epath.Path(folder.absolute())).tree


def _on_host(tree):
    """Arguments with which Orbax reads a tree as numpy arrays."""
    return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)


def _groups_of(leaves: list) -> Iterator[set[int]]:
    """Numbers of arrays, in order, as many at a time as make `COMPARED_AT_ONCE` bytes, but at least one."""
    group, size = set(), 0
    for i, leaf in enumerate(leaves):
        if group and size + leaf.nbytes > COMPARED_AT_ONCE:
            yield group
            group, size = set(), 0
        group.add(i)
        size += leaf.nbytes
    yield group


def _bits(array) -> np.ndarray:
    """The bytes of an array, which are equal where NaNs are."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _shown(array) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"
