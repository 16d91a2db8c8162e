"""Batches and parameters from numpy seeds: nothing read, nothing drawn by jax."""

import jax
import numpy as np


def fake_batch(config, size: int) -> dict:
    """What `config.task` hands to its model, made up: arrays [size, ...]."""
    rng, model = np.random.default_rng(0), config.model
    if config.task in ("reconstruct", "autoencode", "dvae"):
        side, channels = config.data.image_size, config.data.channels
        return {"image": rng.random((size, side, side, channels), np.float32)}
    assert config.task in ("translate", "dalle", "prior"), f"say here what a batch of {config.task} is"
    ids = rng.integers(0, model.codebook_size, (size, model.num_tokens), np.int32)
    lengths = rng.integers(1, config.data.text_len + 1, (size, 1))
    return {
        "ids": ids,
        "decoder_ids": np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=model.codebook_size),
        "text_ids": rng.integers(0, model.text_vocab_size, (size, config.data.text_len), np.int32),
        "text_mask": np.arange(config.data.text_len) < lengths,
        "null": np.arange(size) % 4 == 3,
    }


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
