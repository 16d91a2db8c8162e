"""A run folder of an autoencoder, opened: pictures <-> latent vectors, and new pictures from the prior."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import models, runs
from t2i_jax.errors import UserError
from t2i_jax.pictures import to_uint8
from t2i_jax.pipelines import about
from t2i_jax.pipelines.batches import apply, in_batches
from t2i_jax.pipelines.pixels import as_floats
from t2i_jax.random import stream
from t2i_jax.ranges import sides


class AutoEncoder:
    """An autoencoder: pictures <-> latent vectors.

    Attributes:
      config: of its run.
      digest: of its weights.
      shape: [H, W, C] of its pictures.
      latent: L.
      variational: whether it draws new pictures, by `sample`.
    """

    def __init__(self, run: str | Path, recover: Callable | None = None):
        self.config = runs.read_config(run)
        params, variables, self.step, self.digest = runs.read_weights(run, recover)
        self._connect(models.build(self.config), params, variables)

    @classmethod
    def of_parts(cls, config, model, params, variables) -> "AutoEncoder":
        """An autoencoder in memory, for pictures during training."""
        self = cls.__new__(cls)
        self.config, self.digest = config, ""
        self._connect(model, params, variables)
        return self

    def _connect(self, model, params, variables):
        self._model, self.latent, self.variational = model, model.latent, model.variational
        self.shape = (*sides(model.image_size), model.channels)
        self._variables = jax.device_put({"params": params, **variables})
        self._apply = partial(apply, model, self._variables)

    def __repr__(self) -> str:
        prior = ", and new pictures" if self.variational else ""
        return (
            f"{about.name_of(self)}\n  {about.pictures(self.shape)} <-> {self.latent:,} latent numbers{prior}\n"
            f"  {about.parameters(self._variables['params'])}"
        )

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Latent means float32 [B, L] of pictures [B, H, W, C]: uint8, or floats in [0, 1].

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        images = as_floats(images, self.shape)
        return in_batches(lambda rows: self._apply(rows, method="encode")[0], images, like=self._variables)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Pictures float32 [B, H, W, C] in [0, 1] of latent vectors [B, L].

        Raises:
          UserError: another shape, or numbers that are not finite.
        """
        z = np.asarray(z)
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise UserError(f"latent vectors have shape {z.shape}; this run reads [B, {self.latent}]")
        if not np.isfinite(z).all():
            raise UserError("latent vectors are not all finite; give finite numbers")
        return in_batches(partial(self._apply, method="decode"), z.astype(np.float32), like=self._variables)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """New pictures uint8 [n, H, W, C]: decoded draws from the prior N(0, I).

        An image depends on the seed and its index, 0 <= index < n, alone.

        Raises:
          UserError: a plain autoencoder, n below 1, or a seed out of range.
        """
        if not self.variational:
            raise UserError(
                f"run {self.config.name} is a plain autoencoder, which learns no distribution of latent vectors to"
                " draw new pictures from; train a variational one (config.model.variational)"
            )
        if n < 1:
            raise UserError(f"n {n} is below 1; ask for at least one picture")
        keys = jax.vmap(partial(jax.random.fold_in, stream(seed, "sample")))(jnp.arange(n))
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys)
        return self._pictures(np.asarray(z))

    def interpolate(self, a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
        """Pictures from each `a` to its `b`, on a straight line between their latent means.

        Args:
          a, b: pictures [B, H, W, C], see `encode`.
          steps: pictures a pair, at least 2; the first and last are the reconstructions of `a` and `b`.

        Returns:
          uint8 [B, steps, H, W, C].

        Raises:
          UserError: see `encode`; different numbers of pictures, or fewer than two steps.
        """
        if steps < 2:
            raise UserError(f"steps {steps} is below 2; the two ends are two steps")
        if len(a) != len(b):
            raise UserError(f"{len(a)} pictures cannot be paired with {len(b)}; give equal numbers")
        start, end = self.encode(a)[:, None], self.encode(b)[:, None]
        share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        z = start * (1 - share) + end * share
        images = self._pictures(z.reshape(-1, self.latent))
        return images.reshape(len(a), steps, *images.shape[1:])

    def _pictures(self, z: np.ndarray) -> np.ndarray:
        return to_uint8(self.decode(z))
