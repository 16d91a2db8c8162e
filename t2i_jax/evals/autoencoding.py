"""What an autoencoder keeps of a split: PSNR, the ELBO and its parts, and how many latent units it uses."""

from collections.abc import Callable

import grain
import numpy as np
from jaxtyping import Float

from t2i_jax import losses
from t2i_jax.data import pipeline
from t2i_jax.pictures import picture_grid, to_uint8

ACTIVE = 0.01  # variance over pictures above which the mean of a unit is active
SHOWN = 16  # pictures in the grid


def active_units(mu: Float[np.ndarray, "n L"]) -> int:
    """Latent units that depend on the picture: Var_x(E[z|x]) > 0.01 (Burda et al. 2016, section 5.2).

    Units that do not were given up: their posterior is the prior, whatever the picture (posterior collapse).
    """
    return int(np.sum(np.var(mu, axis=0) > ACTIVE))


def evaluate(predict: Callable, dataset: grain.MapDataset, transform: Callable, batch_size: int = 250) -> tuple:
    """Score an autoencoder on every picture of a split.

    Args:
      predict: `(batch, its number) -> arrays`, see `tasks.autoencode.predict`; compiled for one batch size.
      dataset, transform: the split, see `pipeline.one_pass`.
      batch_size: pictures at a time.

    Returns:
      Scores: `psnr` (mean over pictures, dB) and `log_likelihood` (nats a picture); for a variational model also
      `elbo` and `kl` (nats a picture), `kl_units` (nats of each latent unit) and `active_units`. And a grid of the
      first 16 pictures over their reconstructions.
    """
    rows, grid = [], None
    for number, (batch, count) in enumerate(pipeline.one_pass(dataset, transform, batch_size)):
        found = {name: np.asarray(value) for name, value in predict(batch, number).items()}
        images = found.pop("image")
        found["psnr"] = np.asarray(losses.psnr(images, batch["image"]))
        rows.append({name: value[:count] for name, value in found.items()})
        if grid is None:
            shown = min(SHOWN, count)
            pairs = np.concatenate([batch["image"][:shown], images[:shown]])
            grid = picture_grid(to_uint8(pairs), columns=shown)
    whole = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
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
