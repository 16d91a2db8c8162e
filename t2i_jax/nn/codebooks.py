"""Codebooks as data: nearest and residual codes, warm start by k-means, random restart of dead codes.

Letters: B batch, N feature vectors a picture, D code width, K codebook size, M feature vectors or ids.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

CHUNK = 4096  # feature vectors compared with the codebook at a time: bounds memory at CHUNK x K floats


def nearest_code(features: Float[Array, "*M D"], codebook: Float[Array, "K D"]) -> Int[Array, "*M"]:
    """Ids of the nearest codes by Euclidean distance (van den Oord et al. 2017, eq. 1); ties: the lowest id."""
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)
    # In less than full precision, the default of some accelerators, near ties would fall otherwise there.
    return jnp.argmax(jnp.matmul(features, codebook.T, precision="highest") - half_norms, axis=-1)


def residual_codes(
    features: Float[Array, "B N D"], codebook: Float[Array, "K D"], residual_depth: int
) -> tuple[Int[Array, "B N residual_depth"], Float[Array, "B N residual_depth D"]]:
    """Residual quantization: each code is nearest to the residual of the codes before it.

    Lee et al. 2022 (RQ-VAE), section 3.1, with one codebook for all depths.

    Returns:
      Ids in [0, K), and the residual that each of them was chosen for.
    """
    ids, residuals = [], [features]
    for _ in range(residual_depth):
        ids.append(nearest_code(residuals[-1], codebook))
        residuals.append(residuals[-1] - codebook[ids[-1]])
    return jnp.stack(ids, -1), jnp.stack(residuals[:-1], -2)


def codebook_of(statistics: dict) -> Float[Array, "K D"]:
    """The codes of EMA statistics `{"cluster_size": [K], "embedding_sum": [K, D]}`."""
    return jnp.asarray(statistics["embedding_sum"]) / statistics["cluster_size"][:, None]


def statistics_of(codebook: Float[Array, "K D"], cluster_size: Float[Array, "K"]) -> dict:
    """The inverse of `codebook_of`."""
    return {"cluster_size": cluster_size, "embedding_sum": codebook * cluster_size[:, None]}


def replace_codes(
    params: dict,
    statistics: dict,
    codes: Float[Array, "K D"],
    cluster_size: Float[Array, "K"],
    replaced: Bool[Array, "K"] | None = None,
) -> tuple[dict, dict]:
    """A quantizer's params and EMA statistics with new codes; those of the others keep every bit.

    Args:
      params: with `codes` where these are learned by gradients.
      statistics: with `embedding_sum` where codes are moving averages; `cluster_size` in either case.
      codes, cluster_size: the new ones.
      replaced: which codes are new; None for all.
    """
    if replaced is None:
        replaced = jnp.ones(len(codes), bool)

    def where(new, old):
        return jnp.where(replaced.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    new = statistics_of(codes, cluster_size)
    statistics = {name: where(new[name], old) for name, old in statistics.items()}
    if "embedding_sum" in statistics:
        return params, statistics
    return {**params, "codes": where(codes, params["codes"])}, statistics


def kmeans(
    features: Float[Array, "M D"], codebook_size: int, key: Key[Array, ""], iterations: int = 10
) -> tuple[Float[Array, "K D"], Float[Array, "K"], Int[Array, "M"]]:
    """Lloyd's k-means; a centre without members moves to a feature drawn in proportion to its squared error.

    Args:
      features: vectors to cluster, M >= K.
      codebook_size: K.
      key: source of the random draws.
      iterations: Lloyd iterations.

    Returns:
      Centres, their cluster sizes: fractions of the features (at least a tenth of 1/K), and each feature's centre.
    """
    count, width = features.shape
    first, key = jax.random.split(key)
    centres = features[jax.random.choice(first, count, (codebook_size,), replace=False)]

    def assign(centres):
        ids = jax.lax.map(lambda x: nearest_code(x, centres), features, batch_size=CHUNK)
        return ids, jnp.sum((features - centres[ids]) ** 2, axis=-1)

    def iterate(i, centres):
        ids, errors = assign(centres)
        members = jnp.zeros(codebook_size).at[ids].add(1.0)
        sums = jnp.zeros((codebook_size, width)).at[ids].add(features)
        empty = members == 0
        # The n-th empty centre takes the n-th draw: those come in the order of their need.
        drawn = draw_by_error(jax.random.fold_in(key, i), errors, codebook_size)[jnp.cumsum(empty) - 1]
        seeds = features[drawn]
        return jnp.where(~empty[:, None], sums / jnp.maximum(members, 1)[:, None], seeds)

    centres = jax.lax.fori_loop(0, iterations, iterate, centres)
    ids, _ = assign(centres)
    members = jnp.zeros(codebook_size).at[ids].add(1.0)
    return centres, jnp.maximum(members / count, 0.1 / codebook_size), ids


def residual_kmeans(
    features: Float[Array, "M D"], codebook_size: int, residual_depth: int, key: Key[Array, ""]
) -> tuple[Float[Array, "K D"], Float[Array, "K"]]:
    """A warm start for a codebook: k-means of the features, then of each residual, with equally many codes.

    Args:
      features: encoder outputs, M >= K / residual_depth.
      codebook_size: K, divisible by `residual_depth`.
      residual_depth: of the quantizer.
      key: source of the random draws.

    Returns:
      Codes, and their cluster sizes.
    """
    codes, sizes, residual = [], [], features
    for level in range(residual_depth):
        centres, size, ids = kmeans(residual, codebook_size // residual_depth, jax.random.fold_in(key, level))
        codes.append(centres)
        sizes.append(size / residual_depth)
        residual = residual - centres[ids]
    return jnp.concatenate(codes), jnp.concatenate(sizes)


def random_restart(
    codes: Float[Array, "K D"],
    cluster_size: Float[Array, "K"],
    features: Float[Array, "M D"],
    key: Key[Array, ""],
    threshold: float = 0.05,
) -> tuple[Float[Array, "K D"], Float[Array, "K"], Bool[Array, "K"]]:
    """Re-seed dead codes from the batch (Dhariwal et al. 2020, Jukebox, section 3.1).

    Args:
      codes, cluster_size: of the codebook.
      features: encoder outputs of one batch; those that the codebook serves worst are drawn more often.
      key: source of the random draws.
      threshold: a code is dead when its cluster size falls below `threshold / K`.

    Returns:
      New codes, new cluster sizes (1/K where a code is restarted), and which codes were dead.
    """
    count = len(codes)
    dead = cluster_size * count < threshold
    errors = jnp.sum((features - codes[nearest_code(features, codes)]) ** 2, axis=-1)
    seeds = features[draw_by_error(key, errors, count)[jnp.cumsum(dead) - 1]]  # the n-th dead code, the n-th draw
    return jnp.where(dead[:, None], seeds, codes), jnp.where(dead, 1 / count, cluster_size), dead


def draw_by_error(key: Key[Array, ""], errors: Float[Array, "M"], count: int) -> Int[Array, "count"]:
    """`count` indices drawn in proportion to `errors`, without replacement while M allows it."""
    scores = jnp.log(errors + 1e-12) + jax.random.gumbel(key, errors.shape)
    order = jax.lax.top_k(scores, min(count, errors.shape[0]))[1]
    return jnp.resize(order, (count,))
