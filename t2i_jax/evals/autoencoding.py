"""What an autoencoder keeps of a split: PSNR, the ELBO and its parts, and how many latent units it uses."""

from collections.abc import Callable

import grain
import numpy as np
from jaxtyping import Float

from t2i_jax.evals.reconstruction import predict_split

ACTIVE = 0.01  # variance over pictures above which the mean of a unit is active


def active_units(mu: Float[np.ndarray, "n L"]) -> int:
    """Latent units that depend on the picture: Var_x(E[z|x]) > 0.01 (Burda et al. 2016, section 5.2).

    Units that do not were given up: their posterior is the prior, whatever the picture (posterior collapse).
    """
    return int(np.sum(np.var(mu, axis=0) > ACTIVE))


def evaluate(predict: Callable, params, dataset: grain.MapDataset, transform: Callable, **options) -> tuple:
    """Score an autoencoder on every picture of a split.

    Args:
      predict: as of `predict_split`; its arrays are those of `tasks.autoencode.predict`.
      params, dataset, transform, options: see `reconstruction.predict_split`.

    Returns:
      Scores: `psnr` (mean over pictures, dB) and `log_likelihood` (nats a picture); for a variational model also
      `elbo` and `kl` (nats a picture), `kl_units` (nats of each latent unit) and `active_units`. And the grid of
      `predict_split`.
    """
    whole, grid = predict_split(predict, params, dataset, transform, **options)
    scores = {name: float(np.mean(whole[name])) for name in ("psnr", "log_likelihood")}
    if "kl" in whole:
        units = np.mean(whole["kl"], axis=0)
        scores |= {
            "elbo": scores["log_likelihood"] - float(np.sum(units)),
            "kl": float(np.sum(units)),
            "kl_units": [float(unit) for unit in units],
            "active_units": active_units(whole["mu"]),
        }
    return scores, {"reconstructions": grid}
