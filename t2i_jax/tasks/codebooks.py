"""Codebooks of a tokenizer in training: their start by k-means, and the restart of dead codes."""

import jax
from einops import rearrange

from t2i_jax.errors import UserError
from t2i_jax.nn import codebooks


def kmeans_codebooks(model, params, variables: dict, images, key) -> tuple[dict, dict]:
    """Params and variables whose codebooks are k-means centres of the features of images [n, H, W, C].

    Raises:
      UserError: so few images that there are fewer features than codes.
    """

    def code_space_features(images):
        return model.apply({"params": params, **variables}, images, method="code_space_features")

    depths = _residual_depths(model)
    for name, features in jax.eval_shape(code_space_features, images).items():
        count, codes = features.shape[0] * features.shape[1], len(variables["codebook"][name]["cluster_size"])
        if count * depths[name] < codes:
            raise UserError(f"config.kmeans_examples {len(images)} gives {count} features, {codes} codes; raise it")

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


def restart_dead_codes(model, params, variables: dict, batch: dict, key) -> tuple[dict, dict]:
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
