"""A run folder of an image tokenizer, opened: pictures <-> ids."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np

from t2i_jax import models, runs
from t2i_jax.errors import UserError
from t2i_jax.nn import layout
from t2i_jax.pipelines import about
from t2i_jax.pipelines.batches import apply, in_batches, replicate
from t2i_jax.pipelines.pixels import as_floats


class Tokenizer:
    """An image tokenizer: pictures <-> ids.

    Attributes:
      config: of its run.
      digest: of its weights.
      layout: the grids that its tokens stand in (see `nn.layout`).
      codebook_size, num_tokens: K and N.
      codebook: float32 [K, D].
      position_features: [N, F], where each token stands: alike rows stand for positions near each other.
      cells: N tuples y0, x0, y1, x1, where each token stands in a picture, in pixels (see `nn.layout`).
      valid_ids: bool [N, K], which ids may stand at each position; None where any may.
    """

    def __init__(self, run: str | Path, recover: Callable | None = None):
        self.config = runs.read_config(run)
        self._model = models.build(self.config)
        if not hasattr(self._model, "tokenize"):
            raise UserError(
                f"run {run} holds no image tokenizer; name one that --config=configs/patch_vqvae.py trained"
            )
        params, variables, self.step, self.digest = runs.read_weights(run, recover)
        self.layout = self._model.layout
        self.codebook_size, self.num_tokens = layout.codebook_size(self.layout), layout.num_tokens(self.layout)
        valid = layout.valid_ids(self.layout)
        self.valid_ids = None if valid.all() else valid
        self._variables = jax.device_put({"params": params, **variables})

    def __repr__(self) -> str:
        pictures, parameters = about.pictures(self.config), about.parameters(self.params)
        return f"{about.name_of(self)}\n  {pictures} <-> {self.grid}\n  {parameters}"

    @property
    def grid(self) -> str:
        """How many tokens of how many, in words."""
        return f"{self.num_tokens:,} tokens of {self.codebook_size:,}"

    @property
    def params(self):
        return self._variables["params"]

    @cached_property
    def codebook(self) -> np.ndarray:
        return np.asarray(apply(self._model, self._variables, method="codebook"))

    @cached_property
    def position_features(self) -> np.ndarray:
        return layout.position_features(self.layout)

    @cached_property
    def cells(self) -> list[tuple[int, int, int, int]]:
        side = self.config.model.image_size
        return layout.cells(self.layout, side, side)

    def tokenize(self, images: np.ndarray) -> np.ndarray:
        """Ids int32 [B, N] in [0, K) of pictures [B, H, W, C]: uint8, or floats in [0, 1].

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        side = self.config.model.image_size
        images = as_floats(images, (side, side, self.config.data.channels))
        return self._in_batches("tokenize", images).astype(np.int32)

    def detokenize(self, ids: np.ndarray) -> np.ndarray:
        """Pictures float32 [B, H, W, C] in [0, 1] of ids [B, N].

        Raises:
          UserError: another shape, or an id outside [0, K).
        """
        ids, count, size = np.asarray(ids), self.num_tokens, self.codebook_size
        if ids.ndim != 2 or ids.shape[1] != count or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"ids are {ids.dtype} of shape {ids.shape}; this tokenizer reads integers [B, {count}]")
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise UserError(f"ids reach from {ids.min()} to {ids.max()}; the codebook holds 0 to {size - 1}")
        return self._in_batches("detokenize", ids.astype(np.int32))

    def share_devices(self, like) -> None:
        """Work on all devices on which the parameters `like` lie, each on some of the rows."""
        self._variables = replicate(self._variables, like)

    def _in_batches(self, method: str, rows: np.ndarray) -> np.ndarray:
        return in_batches(partial(apply, self._model, self._variables, method=method), rows, like=self._variables)
