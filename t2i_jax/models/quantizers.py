"""Vector quantization: nearest code, residual codes, straight-through gradients, EMA codebook, k-means
start, revival of dead codes.

Letters: B batch, N feature vectors a picture, D code width, K codebook size, M feature vectors or ids.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

CHUNK = 4096  # feature vectors compared with the codebook at a time: bounds memory at CHUNK x K floats


def nearest_code(features: Float[Array, "*M D"], codebook: Float[Array, "K D"]) -> Int[Array, "*M"]:
    """Ids of the nearest codes by Euclidean distance (van den Oord et al. 2017, eq. 1); ties: the lowest id."""
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)
    return jnp.argmax(features @ codebook.T - half_norms, axis=-1)


def straight_through(features: Float[Array, "*M D"], codes: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """`codes` in the forward pass, the identity of `features` in the backward one (Bengio et al. 2013)."""
    return features + jax.lax.stop_gradient(codes - features)


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


class EMAQuantizer(nn.Module):
    """Nearest codes, with a codebook that follows the features by exponential moving averages.

    van den Oord et al. 2017, appendix A.1. The two averages, how often a code is used and the sum of the
    features it stood for, are taken per feature vector and not per batch. That makes the update linear in
    the batch: averaging it over devices gives what one device with the whole batch would have computed.

    Attributes:
      codebook_size: K.
      depth: codes a feature vector; their sum stands for it (see `residual_codes`).
      decay: weight of the past in both averages, in (0, 1).
    """

    codebook_size: int
    depth: int = 1
    decay: float = 0.99

    @nn.compact
    def __call__(
        self, features: Float[Array, "B N D"], *, update: bool = False
    ) -> tuple[Float[Array, "B N D"], Int[Array, "B M"]]:
        """Quantize.

        Args:
          features: encoder outputs.
          update: move the averages (collection `codebook` must be mutable).

        Returns:
          Straight-through codes, and ids in [0, K), M = N * depth, the depths of a vector side by side.
        """
        size, width = self.codebook_size, features.shape[-1]

        def start_sum():
            return jax.random.normal(self.make_rng("params"), (size, width)) / size

        frequency = self.variable("codebook", "frequency", lambda: jnp.full((size,), 1 / size))
        total = self.variable("codebook", "total", start_sum)
        codebook = codebook_of({"frequency": frequency.value, "total": total.value})
        fixed = jax.lax.stop_gradient(features.astype(jnp.float32))
        ids, left = residual_codes(fixed, codebook, self.depth)
        if update and not self.is_initializing():
            flat, flat_ids = left.reshape(-1, width), ids.reshape(-1)
            used = jnp.zeros(size).at[flat_ids].add(1.0) / flat_ids.size
            summed = jnp.zeros((size, width)).at[flat_ids].add(flat) / flat_ids.size
            # A code unused for thousands of steps stops fading before its average underflows.
            keep = jnp.where(frequency.value * size < 1e-6, 1.0, self.decay)
            frequency.value = keep * frequency.value + (1 - self.decay) * used
            total.value = keep[:, None] * total.value + (1 - self.decay) * summed
        codes = codebook[ids].sum(-2).astype(features.dtype)
        return straight_through(features, codes), ids.reshape(len(ids), -1)

    def codebook(self) -> Float[Array, "K D"]:
        """The codes."""
        return codebook_of({name: self.get_variable("codebook", name) for name in ("frequency", "total")})


def codebook_of(averages: dict) -> Float[Array, "K D"]:
    """The codes that the EMA averages `{"frequency": [K], "total": [K, D]}` stand for."""
    return jnp.asarray(averages["total"]) / averages["frequency"][:, None]


def averages_of(codebook: Float[Array, "K D"], frequency: Float[Array, "K"]) -> dict:
    """The inverse of `codebook_of`."""
    return {"frequency": frequency, "total": codebook * frequency[:, None]}


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


def kmeans_start(features: Float[Array, "M D"], codebook_size: int, depth: int, key: Key[Array, ""]) -> dict:
    """Averages of a codebook that starts from the features: k-means for each depth, an equal share of codes.

    Args:
      features: encoder outputs, M >= K / depth.
      codebook_size: K, divisible by `depth`.
      depth: of the quantizer.
      key: source of the random draws.

    Returns:
      `{"frequency": [K], "total": [K, D]}`.
    """
    parts, left = [], features
    for level in range(depth):
        centres, share = kmeans(left, codebook_size // depth, jax.random.fold_in(key, level))
        parts.append(averages_of(centres, share / depth))
        ids = jax.lax.map(lambda x, centres=centres: nearest_code(x, centres), left, batch_size=CHUNK)
        left = left - centres[ids]
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def revive(averages: dict, features: Float[Array, "M D"], key: Key[Array, ""], threshold: float = 0.05) -> dict:
    """Re-seed dead codes from the batch (Dhariwal et al. 2020, Jukebox, section 3.1).

    Args:
      averages: `{"frequency": [K], "total": [K, D]}`, the state of an `EMAQuantizer`.
      features: encoder outputs of one batch; those that the codebook serves worst are drawn more often.
      key: source of the random draws.
      threshold: a code is dead when its frequency falls below `threshold / K`.

    Returns:
      New averages. Revived codes start at frequency 1/K.
    """
    codebook, frequency = codebook_of(averages), averages["frequency"]
    size = frequency.shape[0]
    dead = frequency * size < threshold
    errors = jnp.sum((features - codebook[nearest_code(features, codebook)]) ** 2, axis=-1)
    seeds = features[draw_by_error(key, errors, size)[jnp.cumsum(dead) - 1]]  # the n-th dead code, the n-th draw
    return averages_of(jnp.where(dead[:, None], seeds, codebook), jnp.where(dead, 1 / size, frequency))


def draw_by_error(key: Key[Array, ""], errors: Float[Array, "M"], count: int) -> Int[Array, "count"]:
    """`count` indices drawn in proportion to `errors`, without replacement while M allows it."""
    scores = jnp.log(errors + 1e-12) + jax.random.gumbel(key, errors.shape)
    order = jax.lax.top_k(scores, min(count, errors.shape[0]))[1]
    return jnp.resize(order, (count,))
