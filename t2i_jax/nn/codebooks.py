"""Codebooks as data: nearest and residual codes, k-means start, revival of dead codes.

Letters: B batch, N feature vectors a picture, D code width, K codebook size, M feature vectors or ids.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

CHUNK = 4096  # feature vectors compared with the codebook at a time: bounds memory at CHUNK x K floats


def nearest_code(features: Float[Array, "*M D"], codebook: Float[Array, "K D"]) -> Int[Array, "*M"]:
    """Ids of the nearest codes by Euclidean distance (van den Oord et al. 2017, eq. 1); ties: the lowest id."""
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)
    # In less than full precision, the default of some accelerators, near ties would fall otherwise there.
    return jnp.argmax(jnp.matmul(features, codebook.T, precision="highest") - half_norms, axis=-1)


def residual_codes(
    features: Float[Array, "B N D"], codebook: Float[Array, "K D"], depth: int
) -> tuple[Int[Array, "B N depth"], Float[Array, "B N depth D"]]:
    """Residual quantization: each code is nearest to what the codes before it left over.

    Lee et al. 2022 (RQ-VAE), section 3.1, with one codebook for all depths.

    Returns:
      Ids in [0, K), and the vector that each of them was chosen for.
    """
    ids, left = [], [features]
    for _ in range(depth):
        ids.append(nearest_code(left[-1], codebook))
        left.append(left[-1] - codebook[ids[-1]])
    return jnp.stack(ids, -1), jnp.stack(left[:-1], -2)


def codebook_of(averages: dict) -> Float[Array, "K D"]:
    """The codes that the EMA averages `{"frequency": [K], "total": [K, D]}` stand for."""
    return jnp.asarray(averages["total"]) / averages["frequency"][:, None]


def averages_of(codebook: Float[Array, "K D"], frequency: Float[Array, "K"]) -> dict:
    """The inverse of `codebook_of`."""
    return {"frequency": frequency, "total": codebook * frequency[:, None]}


def place(
    params: dict, averages: dict, codes: Float[Array, "K D"], frequency: Float[Array, "K"]
) -> tuple[dict, dict]:
    """A quantizer's params and averages with these codes, in the averages or the parameter `codes`."""
    if "total" in averages:
        return params, averages_of(codes, frequency)
    return {**params, "codes": codes}, {"frequency": frequency}


def kmeans(
    features: Float[Array, "M D"], codebook_size: int, key: Key[Array, ""], iterations: int = 10
) -> tuple[Float[Array, "K D"], Float[Array, "K"]]:
    """Lloyd's k-means; a centre without members moves to a feature drawn in proportion to its squared error.

    Args:
      features: vectors to cluster, M >= K.
      codebook_size: K.
      key: source of the random draws.
      iterations: Lloyd iterations.

    Returns:
      Centres, and the share of the features that each one owns (at least a tenth of 1/K).
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
    members = jnp.zeros(codebook_size).at[assign(centres)[0]].add(1.0)
    return centres, jnp.maximum(members / count, 0.1 / codebook_size)


def kmeans_start(
    features: Float[Array, "M D"], codebook_size: int, depth: int, key: Key[Array, ""]
) -> tuple[Float[Array, "K D"], Float[Array, "K"]]:
    """A codebook that starts from the features: k-means for each depth, an equal share of codes.

    Args:
      features: encoder outputs, M >= K / depth.
      codebook_size: K, divisible by `depth`.
      depth: of the quantizer.
      key: source of the random draws.

    Returns:
      Codes, and how often each is used.
    """
    codes, frequency, left = [], [], features
    for level in range(depth):
        centres, share = kmeans(left, codebook_size // depth, jax.random.fold_in(key, level))
        codes.append(centres)
        frequency.append(share / depth)
        ids = jax.lax.map(lambda x, centres=centres: nearest_code(x, centres), left, batch_size=CHUNK)
        left = left - centres[ids]
    return jnp.concatenate(codes), jnp.concatenate(frequency)


def revive(
    codes: Float[Array, "K D"],
    frequency: Float[Array, "K"],
    features: Float[Array, "M D"],
    key: Key[Array, ""],
    threshold: float = 0.05,
) -> tuple[Float[Array, "K D"], Float[Array, "K"]]:
    """Re-seed dead codes from the batch (Dhariwal et al. 2020, Jukebox, section 3.1).

    Args:
      codes, frequency: of the codebook.
      features: encoder outputs of one batch; those that the codebook serves worst are drawn more often.
      key: source of the random draws.
      threshold: a code is dead when its frequency falls below `threshold / K`.

    Returns:
      New codes and frequencies. Revived codes start at frequency 1/K.
    """
    size = len(codes)
    dead = frequency * size < threshold
    errors = jnp.sum((features - codes[nearest_code(features, codes)]) ** 2, axis=-1)
    seeds = features[draw_by_error(key, errors, size)[jnp.cumsum(dead) - 1]]  # the n-th dead code, the n-th draw
    return jnp.where(dead[:, None], seeds, codes), jnp.where(dead, 1 / size, frequency)


def draw_by_error(key: Key[Array, ""], errors: Float[Array, "M"], count: int) -> Int[Array, "count"]:
    """`count` indices drawn in proportion to `errors`, without replacement while M allows it."""
    scores = jnp.log(errors + 1e-12) + jax.random.gumbel(key, errors.shape)
    order = jax.lax.top_k(scores, min(count, errors.shape[0]))[1]
    return jnp.resize(order, (count,))
