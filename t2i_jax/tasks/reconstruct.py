"""Reconstruct pictures through a discrete bottleneck (an image tokenizer)."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from t2i_jax import losses
from t2i_jax.data import pipeline
from t2i_jax.models import quantizers


def inputs(config) -> tuple[dict, object]:
    """Datasets by split, and the transform from an example to `{"image": float32 [H, W, 3] in [0, 1]}`."""
    data = config.data
    splits = {
        split: pipeline.open_split(data.name, data.data_dir, data[split], data.damaged)
        for split in ("train", "validation")
    }
    return splits, transform


def transform(example: dict, rng: np.random.Generator | None) -> dict:
    """uint8 pixels -> float32 in [0, 1]; draws nothing."""
    return {"image": example["image"].astype(np.float32) / 255}


def init(model, key, batch: dict) -> dict:
    """Freshly initialised variables."""
    return model.init(key, batch["image"])


def start(model, params, variables: dict, config, key) -> tuple[dict, dict]:
    """Start the codebook by k-means over the features of `config.kmeans_examples` training pictures."""
    dataset = inputs(config)[0]["train"].seed(config.seed).shuffle()
    images = np.stack([transform(dataset[i], None)["image"] for i in range(config.kmeans_examples)])

    @jax.jit
    def fit(images, key):
        features = model.apply({"params": params, **variables}, images, method="encode")
        return {
            name: quantizers.kmeans_start(
                rearrange(features[name], "b m d -> (b m) d"),
                len(averages["frequency"]),
                model.depths[name],
                jax.random.fold_in(key, number),
            )
            for number, (name, averages) in enumerate(sorted(variables["codebook"].items()))
        }

    return params, {**variables, "codebook": fit(images, key)}


def loss_fn(
    model, params, variables, batch, *, step, rngs, train, commitment_weight: float, foreground_weight: float
):
    """Weighted squared error plus commitment (van den Oord et al. 2017, eq. 3).

    Args:
      batch: `{"image": [B, H, W, 3]}` in [0, 1].
      commitment_weight: β.
      foreground_weight: weight of a pixel that is not black.

    Returns:
      loss, (variables after the codebook's update, metrics).
    """
    (images, features, codes, _), variables = model.apply(
        {"params": params, **variables}, batch["image"], train=train, mutable=list(variables)
    )
    error = losses.squared_error(images, batch["image"], foreground_weight)
    commitment = sum(losses.commitment(features[name], codes[name]) for name in features)
    loss = jnp.mean(error + commitment_weight * commitment)
    metrics = {
        "loss": loss,
        "psnr": jnp.mean(losses.psnr(images, batch["image"])),
        "commitment": jnp.mean(commitment),
    }
    return loss, (variables, metrics)


def upkeep(model, params, variables: dict, batch: dict, key) -> dict:
    """Variables with dead codes re-seeded from the batch."""
    features = model.apply({"params": params, **variables}, batch["image"], method="encode")

    def revived(number, name, averages):
        codebook = quantizers.codebook_of(averages)
        left = quantizers.residual_codes(features[name], codebook, model.depths[name])[1]
        return quantizers.revive(averages, rearrange(left, "b m n d -> (b m n) d"), jax.random.fold_in(key, number))

    codebooks = {
        name: revived(number, name, averages)
        for number, (name, averages) in enumerate(sorted(variables["codebook"].items()))
    }
    return {**variables, "codebook": codebooks}


def predict(model, params, variables, batch) -> dict:
    """Clipped reconstructions `image` and their `ids`."""
    images, _, _, ids = model.apply({"params": params, **variables}, batch["image"])
    return {"image": jnp.clip(images, 0.0, 1.0), "ids": ids}
