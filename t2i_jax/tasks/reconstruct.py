"""Reconstruct pictures through a discrete bottleneck (an image tokenizer)."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from t2i_jax import losses
from t2i_jax.data import pipeline
from t2i_jax.errors import UserError
from t2i_jax.nn import codebooks


def inputs(config) -> tuple[dict, object]:
    """Datasets by split, and the transform from an example to `{"image": float32 [H, W, C] in [0, 1]}`.

    Raises:
      UserError: the data set cannot be opened, or its pictures have another shape than the config says.
    """
    data = config.data
    splits = {
        split: pipeline.open_split(data.name, data.data_dir, data[split], data.damaged)
        for split in ("train", "validation")
    }
    shape, asked = splits["train"][0]["image"].shape, (data.image_size, data.image_size, data.channels)
    if shape != asked:
        raise UserError(
            f"{data.name} has pictures {shape}, not {asked}; set config.data.image_size and config.data.channels"
        )
    return splits, transform


def transform(example: dict, rng: np.random.Generator | None) -> dict:
    """uint8 pixels -> float32 in [0, 1]; draws nothing."""
    return {"image": example["image"].astype(np.float32) / 255}


def init(model, key, batch: dict) -> dict:
    """Freshly initialised variables."""
    return model.init(key, batch["image"])


def pictures(config) -> np.ndarray:
    """[config.kmeans_examples, H, W, C] in [0, 1] of the training split, for a start by k-means."""
    print(f"k-means over the features of {config.kmeans_examples} pictures", file=sys.stderr)
    dataset = inputs(config)[0]["train"].seed(config.seed).shuffle()
    return np.stack([transform(dataset[i], None)["image"] for i in range(config.kmeans_examples)])


def start(model, params, variables: dict, config, key) -> tuple[dict, dict]:
    """Start the codebooks, where there are any, by k-means over features of training pictures.

    `config.kmeans_examples` says of how many; 0 switches it off.

    Raises:
      UserError: so few pictures that there are fewer features than codes.
    """
    if not (config.kmeans_examples and variables.get("codebook")):
        return params, variables
    images = pictures(config)

    def code_space_features(images):
        return model.apply({"params": params, **variables}, images, method="code_space_features")

    depths = _residual_depths(model)
    for name, features in jax.eval_shape(code_space_features, images).items():
        count, codes = features.shape[0] * features.shape[1], len(variables["codebook"][name]["cluster_size"])
        if count * depths[name] < codes:
            raise UserError(
                f"config.kmeans_examples {config.kmeans_examples} gives {count} features, {codes} codes; raise it"
            )

    @jax.jit
    def fit(images, key):
        features = jax.lax.map(
            code_space_features, images[:, None], batch_size=100
        )  # deep encoders: not all at once

        def codes(number, name, statistics):
            flat = rearrange(features[name], "b 1 m d -> (b m) d")
            size = len(statistics["cluster_size"])
            return codebooks.residual_kmeans(flat, size, depths[name], jax.random.fold_in(key, number))

        return _replaced(params, variables, codes)

    return fit(images, key)


def loss_fn(model, params, variables, batch, *, step, rngs, train, foreground_weight: float):
    """Weighted squared error, and what the quantizer asks for (van den Oord et al. 2017, eq. 3).

    Args:
      batch: `{"image": [B, H, W, C]}` in [0, 1].
      foreground_weight: weight of a pixel that is not black.

    Returns:
      loss, (variables after the codebook's update, metrics).
    """
    (images, asked, _), variables = model.apply(
        {"params": params, **variables}, batch["image"], train=train, mutable=list(variables), rngs=rngs
    )
    loss = jnp.mean(losses.squared_error(images, batch["image"], foreground_weight) + asked)
    metrics = {
        "loss": loss,
        "psnr": jnp.mean(losses.psnr(images, batch["image"])),
        "quantizer_loss": jnp.mean(asked),
    }
    return loss, (variables, metrics)


def upkeep(model, params, variables: dict, batch: dict, key) -> tuple[dict, dict]:
    """Params and variables with dead codes re-seeded from the batch."""
    if not variables.get("codebook"):
        return params, variables
    everything = {"params": params, **variables}
    features = model.apply(everything, batch["image"], method="code_space_features")
    tables, depths = model.apply(everything, method="code_space_codebooks"), _residual_depths(model)

    def restarted(number, name, statistics):
        residuals = codebooks.residual_codes(features[name], tables[name], depths[name])[1]
        flat, own_key = rearrange(residuals, "b m n d -> (b m n) d"), jax.random.fold_in(key, number)
        return codebooks.random_restart(tables[name], statistics["cluster_size"], flat, own_key)

    return _replaced(params, variables, restarted)


def _residual_depths(model) -> dict[str, int]:
    return {grid.name: grid.residual_depth for grid in model.layout}


def _replaced(params, variables, codes) -> tuple[dict, dict]:
    """Params and variables with what `codes(number, name, statistics)` gives `codebooks.replace_codes`."""
    params, all_statistics = dict(params), {}
    for number, (name, statistics) in enumerate(sorted(variables["codebook"].items())):
        new = codes(number, name, statistics)
        own, all_statistics[name] = codebooks.replace_codes(params.get(name, {}), statistics, *new)
        if own:
            params[name] = own
    return params, {**variables, "codebook": all_statistics}


def predict(model, params, variables, batch) -> dict:
    """Clipped reconstructions `image` and their `ids`."""
    images, _, ids = model.apply({"params": params, **variables}, batch["image"])
    return {"image": jnp.clip(images, 0.0, 1.0), "ids": ids}
