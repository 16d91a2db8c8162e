"""A run folder of an image tokenizer, opened: pictures <-> ids."""

import copy
from collections.abc import Callable, Sequence
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
from t2i_jax.ranges import as_image_size, sides


class Tokenizer:
    """An image tokenizer: pictures <-> ids.

    A fully convolutional one reads pictures of every size that its downsampling factor divides; see `at_size`.

    Attributes:
      config: of its run.
      digest: of its weights.
      shape: [H, W, C] of its pictures: those it was trained on, or of `at_size`.
      fits_any_size: whether it is fully convolutional, and reads pictures of other sizes as well.
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
        self._variables = jax.device_put({"params": params, **variables})
        self._connect(self._model)

    def _connect(self, model):
        self._model, self.layout = model, model.layout
        self.fits_any_size = getattr(model, "fits_any_size", False)
        self.shape = (*sides(model.image_size), self.config.data.channels)
        self.codebook_size, self.num_tokens = layout.codebook_size(self.layout), layout.num_tokens(self.layout)
        self.cells = layout.cells(self.layout, *self.shape[:2])
        valid = layout.valid_ids(self.layout)
        self.valid_ids = None if valid.all() else valid

    def __repr__(self) -> str:
        pictures, parameters = about.pictures(self.shape), about.parameters(self.params)
        return f"{about.name_of(self)}\n  {pictures} <-> {self.grid}\n  {parameters}"

    def at_size(self, image_size: int | Sequence[int]) -> "Tokenizer":
        """The same tokenizer for pictures of another size, with grids to match; itself where that is its size.

        Args:
          image_size: side in pixels, or height and width.

        Raises:
          UserError: the tokenizer reads one size only, or its downsampling factor does not divide a side.
        """
        size, own = as_image_size(image_size), as_image_size(self.shape[:2])
        if size == own:
            return self
        if not self.fits_any_size:
            raise UserError(
                f"{self.config.name} is for pictures of image_size {own}, not {size}: a {self.config.model_name}"
                " has parameters of its own for each size; train one of that size"
            )
        other = copy.copy(self)
        try:
            other._connect(self._model.clone(image_size=size))
        except ValueError as error:
            raise UserError(f"{self.config.name}: {error}") from None
        return other

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

    @property
    def position_features(self) -> np.ndarray:
        return layout.position_features(self.layout)

    def tokenize(self, images: np.ndarray) -> np.ndarray:
        """Ids int32 [B, N] in [0, K) of pictures [B, H, W, C]: uint8, or floats in [0, 1].

        Pictures of another size are tokenized `at_size` of them, where that can be: N follows from it.

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        images = np.asarray(images)
        if self.fits_any_size and images.ndim == 4 and images.shape[1:3] != self.shape[:2]:
            return self.at_size(images.shape[1:3]).tokenize(images)
        return self._in_batches("tokenize", as_floats(images, self.shape)).astype(np.int32)

    def detokenize(self, ids: np.ndarray, image_size: int | Sequence[int] | None = None) -> np.ndarray:
        """Pictures float32 [B, H, W, C] in [0, 1] of ids [B, N].

        Args:
          ids: in [0, K).
          image_size: of the pictures, where these are not as large as its own; see `at_size`.

        Raises:
          UserError: another shape, an id outside [0, K), or a size that cannot be.
        """
        if image_size is not None:
            return self.at_size(image_size).detokenize(ids)
        return self._in_batches("detokenize", self.check_ids(ids))

    def check_ids(self, ids: np.ndarray) -> np.ndarray:
        """Ids [B, N] as int32.

        Raises:
          UserError: another shape, as of pictures of another size, or an id outside [0, K).
        """
        ids, count, size = np.asarray(ids), self.num_tokens, self.codebook_size
        if ids.ndim != 2 or ids.shape[1] != count or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(
                f"ids are {ids.dtype} of shape {ids.shape}; {about.pictures(self.shape)} of this run have integers"
                f" [B, {count}]"
            )
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise UserError(f"ids reach from {ids.min()} to {ids.max()}; the codebook holds 0 to {size - 1}")
        return ids.astype(np.int32)

    def share_devices(self, like) -> None:
        """Work on all devices on which the parameters `like` lie, each on some of the rows."""
        self._variables = replicate(self._variables, like)

    def _in_batches(self, method: str, rows: np.ndarray) -> np.ndarray:
        return in_batches(partial(apply, self._model, self._variables, method=method), rows, like=self._variables)
