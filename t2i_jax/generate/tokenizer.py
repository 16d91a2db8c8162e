"""A run folder of an image tokenizer, opened: pictures <-> ids."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import models
from t2i_jax.errors import UserError
from t2i_jax.generate.batches import padded
from t2i_jax.loop import run as runs

TOKENIZERS = ("reconstruct", "dvae")  # tasks whose runs hold one


class Tokenizer:
    """An image tokenizer: pictures <-> ids.

    Attributes:
      config: of its run.
      digest: of its weights.
      codebook_size, num_tokens: K and N.
      codebook: float32 [K, D].
    """

    def __init__(self, run: str | Path):
        self.config = runs.read_config(run)
        if self.config.task not in TOKENIZERS:
            raise UserError(f"run {run} holds no image tokenizer; name one that --config=configs/vqvae.py trained")
        params, variables, self.step, self.digest = runs.read_weights(run)
        self._model = models.build(self.config)
        self.codebook_size, self.num_tokens = self._model.codebook_size, self._model.num_tokens
        self._variables = jax.tree.map(jnp.asarray, {"params": params, **variables})
        self._apply = jax.jit(self._model.apply, static_argnames="method")
        self.codebook = np.asarray(self._apply(self._variables, method="codebook"))

    def tokenize(self, images: np.ndarray) -> np.ndarray:
        """Ids int32 [B, N] in [0, K) of pictures [B, H, W, 3]: uint8, or floats in [0, 1].

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        images = np.asarray(images)
        side = self.config.model.image_size
        if images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise UserError(f"pictures have shape {images.shape}; this tokenizer reads [B, {side}, {side}, 3]")
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / 255
        elif not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"pictures are {images.dtype}; give uint8, or floats in [0, 1]")
        elif images.size and not (images.min() >= 0 and images.max() <= 1):
            raise UserError(f"pixels reach from {images.min():g} to {images.max():g}; scale them to [0, 1]")
        return self._in_batches("tokenize", images.astype(np.float32)).astype(np.int32)

    def detokenize(self, ids: np.ndarray) -> np.ndarray:
        """Pictures float32 [B, H, W, 3] in [0, 1] of ids [B, N].

        Raises:
          UserError: another shape, or an id outside [0, K).
        """
        ids, count, size = np.asarray(ids), self.num_tokens, self.codebook_size
        if ids.ndim != 2 or ids.shape[1] != count or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"ids are {ids.dtype} of shape {ids.shape}; this tokenizer reads integers [B, {count}]")
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise UserError(f"ids reach from {ids.min()} to {ids.max()}; the codebook holds 0 to {size - 1}")
        return self._in_batches("detokenize", ids.astype(np.int32))

    def _in_batches(self, method: str, rows: np.ndarray) -> np.ndarray:
        apply = partial(self._apply, self._variables, method=method)
        if not len(rows):
            shape = jax.eval_shape(apply, jnp.zeros((1, *rows.shape[1:]), rows.dtype))
            return np.zeros((0, *shape.shape[1:]), shape.dtype)
        return np.concatenate([np.asarray(apply(part))[:count] for part, count in padded(rows)])
