"""Batches and parameters from numpy seeds: nothing read, nothing drawn by jax."""

from pathlib import Path

import jax
import numpy as np

from t2i_jax.config import known_configs

CONFIGS = Path(__file__).parents[1] / "configs"
SMOKE = [Path(known).stem for known in known_configs(CONFIGS) if known.endswith(":smoke")]


def fake_batch(task, size: int, seed: int = 0) -> dict:
    """What a task hands to its model, made up: arrays [size, ...] of the shapes that it names."""
    rng, spec, model = np.random.default_rng(seed), task.batch_spec(size), task.config.model
    batch = {}
    for name, x in spec.items():
        if name == "given_ids":
            batch[name] = batch["ids"]
        elif name == "text_mask":
            batch[name] = np.arange(x.shape[1]) < rng.integers(1, x.shape[1] + 1, (size, 1))
        elif name == "null":
            batch[name] = np.arange(size) % 4 == 3
        elif x.dtype == np.int32:
            rows = {"ids": "codebook_size", "text_ids": "text_vocab_size"}[name]
            batch[name] = rng.integers(0, model[rows], x.shape, np.int32)
        else:
            batch[name] = rng.random(x.shape, np.float32)
    return batch


def fake_variables(shapes: dict) -> dict:
    """Values for a model's variables: small normal ones, norms around 1, every code in use alike."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = path[-1].key
        if name == "cluster_size":
            return np.full(leaf.shape, 1 / leaf.size, leaf.dtype)
        values = 0.1 * rng.standard_normal(leaf.shape) + (name == "scale")
        return np.asarray(values / len(values) if name == "embedding_sum" else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)
