"""Quantizers: features -> codes and ids, with a gradient for whoever made the features.

All answer alike: `__call__`, `project`, `codebook`; `make` builds one by the name of its kind. What a codebook is
started from and how its dead codes come back stands in `codebooks.py`.

Letters: B batch, N feature vectors a picture, D their width, d code width, K codebook size, M = N * depth ids.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.nn.codebooks import codebook_of, residual_codes

TINY = 1e-6  # length up to which a vector has no direction


class Quantized(NamedTuple):
    """What a quantizer makes of features.

    Attributes:
      codes: Float[B, N, D], with a gradient to the features.
      ids: Int[B, M] in [0, K), the depths of a vector side by side.
      loss: Float[B], what the quantizer asks of features and codes; to be added to the loss.
    """

    codes: Array
    ids: Array
    loss: Array


def straight_through(features: Float[Array, "*M D"], codes: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """`codes` in the forward pass, the identity of `features` in the backward one (Bengio et al. 2013)."""
    return features + jax.lax.stop_gradient(codes - features)


def rotate(features: Float[Array, "*M D"], codes: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """`codes` in the forward pass, the rotation from features to codes in the backward one.

    Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", section 4.2: with e the
    features, q the codes and r the unit vector half-way between their directions, |q| / |e| (e - 2 r r'e +
    2 q^ e^'e), all but e held fixed. Where either has no direction it is straight-through.
    """
    e, q = jax.lax.stop_gradient((features, codes))
    e_length, q_length = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (e, q))
    e_hat, q_hat = e / jnp.maximum(e_length, TINY), q / jnp.maximum(q_length, TINY)
    half = e_hat + q_hat
    half_length = jnp.linalg.norm(half, axis=-1, keepdims=True)
    half = half / jnp.maximum(half_length, TINY)

    def along(direction):
        return jnp.sum(features * direction, -1, keepdims=True)

    turned = features - 2 * along(half) * half + 2 * along(e_hat) * q_hat
    rotated = q_length / jnp.maximum(e_length, TINY) * turned
    # Opposite directions have no plane to turn in.
    shortest = jnp.minimum(jnp.minimum(e_length, q_length), half_length)
    return jnp.where(shortest > TINY, rotated, straight_through(features, codes))


def normalise(x: Float[Array, "*M D"]) -> Float[Array, "*M D"]:
    """Vectors of length 1; a vector without direction stays near 0."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)


class CodebookQuantizer(nn.Module):
    """Nearest codes of a codebook that follows the features.

    By moving averages (van den Oord et al. 2017, appendix A.1): how often a code is used and the sum of the
    features it stood for, both taken per feature vector and not per batch. That makes the update linear in the
    batch: averaging it over devices gives what one device with the whole batch would have computed. Or by gradients
    (eq. 3, second term), with the codes a parameter.

    Attributes:
      codebook_size: K.
      width: D, of the features.
      depth: codes a feature vector; their sum stands for it (see `codebooks.residual_codes`).
      learned: codes are a parameter, moved by gradients.
      estimator: of the gradient to the features, `straight_through` or `rotate`.
      lookup_width: d; 0 looks up the features as they are, otherwise they are projected to d, and features and
        codes have length 1 (Yu et al. 2022, "Vector-quantized image modeling with improved VQGAN", section 3.2).
      decay: weight of the past in the averages, in (0, 1).
      commitment: weight of what binds features to their codes (van den Oord et al. 2017, eq. 3, third term).
    """

    codebook_size: int
    width: int
    depth: int = 1
    learned: bool = False
    estimator: Callable = straight_through
    lookup_width: int = 0
    decay: float = 0.99
    commitment: float = 0.25

    def setup(self):
        size, width = self.codebook_size, self.lookup_width or self.width
        self.frequency = self.variable("codebook", "frequency", lambda: jnp.full((size,), 1 / size))
        if self.learned:
            self.codes = self.param("codes", nn.initializers.normal(1.0), (size, width))
        else:
            self.total = self.variable(
                "codebook", "total", lambda: jax.random.normal(self.make_rng("params"), (size, width)) / size
            )
        if self.lookup_width:
            self.down = nn.Dense(width, use_bias=False)
            self.up = nn.Dense(self.width, use_bias=False)

    def project(self, features: Float[Array, "B N D"]) -> Float[Array, "B N d"]:
        """Features as they are compared with codes."""
        x = features.astype(jnp.float32)
        return normalise(self.down(x)) if self.lookup_width else x

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize; `train` moves the averages (collection `codebook` must be mutable)."""
        x, table = self.project(features), self.table()
        fixed = jax.lax.stop_gradient(x)
        ids, left = residual_codes(fixed, jax.lax.stop_gradient(table), self.depth)
        codes = table[ids].sum(-2)
        loss = self.commitment * (x - jax.lax.stop_gradient(codes)) ** 2
        if self.learned:
            loss = loss + (codes - fixed) ** 2
        if train and not self.is_initializing():
            self._follow(left.reshape(-1, left.shape[-1]), ids.reshape(-1))
        out = self._unproject(self.estimator(x, jax.lax.stop_gradient(codes)))
        return Quantized(out.astype(features.dtype), ids.reshape(len(ids), -1), jnp.mean(loss, (-2, -1)))

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features."""
        return self._unproject(self.table())

    def table(self) -> Float[Array, "K d"]:
        """The codes, as features are compared with them."""
        if self.learned:
            table = self.codes
        else:
            table = codebook_of({"frequency": self.frequency.value, "total": self.total.value})
        return normalise(table) if self.lookup_width else table

    def _unproject(self, codes):
        return self.up(codes) if self.lookup_width else codes

    def _follow(self, vectors, ids):
        """Move the averages towards what the batch asked for."""
        size = self.codebook_size
        # A code unused for thousands of steps stops fading before its average underflows.
        keep = jnp.where(self.frequency.value * size < 1e-6, 1.0, self.decay)
        used = jnp.zeros(size).at[ids].add(1.0) / ids.size
        self.frequency.value = keep * self.frequency.value + (1 - self.decay) * used
        if not self.learned:
            summed = jnp.zeros_like(self.total.value).at[ids].add(vectors) / ids.size
            self.total.value = keep[:, None] * self.total.value + (1 - self.decay) * summed


class GumbelQuantizer(nn.Module):
    """One of K codes by Gumbel-softmax over logits of the features (Jang et al. 2017, eq. 2 and section 2.2).

    Straight-through: the forward pass picks one code, the backward pass is that of the soft weights. Draws from
    the random stream "dropout" while training; otherwise it is the likeliest code.

    Attributes:
      codebook_size: K.
      width: D.
      temperature: of the softmax, above 0.
      kl_weight: of the divergence from uniform codes, against collapse, in nats a feature vector.
    """

    codebook_size: int
    width: int
    temperature: float = 1.0
    kl_weight: float = 5e-4

    def setup(self):
        self.logits = nn.Dense(self.codebook_size)
        self.codes = self.param("codes", nn.initializers.normal(1.0), (self.codebook_size, self.width))

    def project(self, features: Float[Array, "B N D"]) -> Float[Array, "B N K"]:
        """Logits of the codes."""
        return self.logits(features.astype(jnp.float32))

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize."""
        logits = self.project(features)
        log_p = jax.nn.log_softmax(logits)
        loss = self.kl_weight * jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, -1) + np.log(self.codebook_size), -1)
        if train:
            logits = logits + jax.random.gumbel(self.make_rng("dropout"), logits.shape)
        ids = jnp.argmax(logits, -1)
        one_hot = jax.nn.one_hot(ids, self.codebook_size)
        weights = straight_through(jax.nn.softmax(logits / self.temperature), one_hot) if train else one_hot
        return Quantized((weights @ self.codes).astype(features.dtype), ids, loss)

    def codebook(self) -> Float[Array, "K D"]:
        """The codes."""
        return self.codes


def levels_of(codebook_size: int) -> tuple[int, ...]:
    """K as a product of as few factors as possible, each 4 to 8, the greater ones first.

    Raises:
      ValueError: there is no such product.
    """

    def search(rest, most, count):
        if count == 1:
            return (rest,) if 4 <= rest <= most else None
        tails = ((f, search(rest // f, f, count - 1)) for f in range(min(most, rest), 3, -1) if rest % f == 0)
        return next(((f, *tail) for f, tail in tails if tail), None)

    for count in range(1, max(2, int(codebook_size).bit_length())):
        if levels := search(codebook_size, 8, count):
            return levels
    raise ValueError(f"codebook_size {codebook_size} is no product of levels from 4 to 8; 240, 512 and 2048 are")


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3): every channel is rounded to one of a few levels.

    Attributes:
      codebook_size: K, the product of the levels (see `levels_of`).
      width: D.
    """

    codebook_size: int
    width: int

    def setup(self):
        self.levels = levels_of(self.codebook_size)
        self.down = nn.Dense(len(self.levels))
        self.up = nn.Dense(self.width)

    def project(self, features: Float[Array, "B N D"]) -> Float[Array, "B N d"]:
        """Features bounded to where they round to whole numbers, -L // 2 up to (L - 1) // 2 of a channel's L."""
        levels = np.array(self.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        return jnp.tanh(self.down(features.astype(jnp.float32)) + np.arctanh(offset / half)) * half - offset

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize; training is no different."""
        del train
        x = self.project(features)
        whole = jnp.round(x)
        ids = jnp.sum((whole + np.array(self.levels) // 2) * self._basis(), -1).astype(jnp.int32)
        codes = self._unproject(straight_through(x, whole))
        return Quantized(codes.astype(features.dtype), ids, jnp.zeros(len(ids)))

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features; the first channel turns fastest."""
        levels = np.array(self.levels)
        digits = np.arange(self.codebook_size)[:, None] // self._basis() % levels
        return self._unproject(jnp.array(digits - levels // 2, jnp.float32))

    def _basis(self):
        return np.cumprod([1, *self.levels[:-1]])

    def _unproject(self, whole):
        return self.up(whole / (np.array(self.levels) // 2))


KINDS = {
    "ema": CodebookQuantizer,
    "gradient": partial(CodebookQuantizer, learned=True),
    "l2": partial(CodebookQuantizer, lookup_width=8),
    "rotation": partial(CodebookQuantizer, estimator=rotate),
    "gumbel": GumbelQuantizer,
    "fsq": FSQ,
}


def make(kind: str, codebook_size: int, width: int, depth: int = 1, **options) -> nn.Module:
    """A quantizer by the name of its kind.

    Args:
      kind: a key of `KINDS`.
      codebook_size: K.
      width: D, of the features.
      depth: codes a feature vector; above 1 only for kinds with a codebook.
      options: other fields of the kind.

    Raises:
      ValueError: no such kind, or a depth that it has not.
      TypeError: no such option.
    """
    if kind not in KINDS:
        raise ValueError(f"quantizer {kind!r} is unknown; choose {', '.join(KINDS)}")
    if depth == 1:
        return KINDS[kind](codebook_size, width, **options)
    if KINDS[kind] in (GumbelQuantizer, FSQ):
        raise ValueError(f"quantizer {kind!r} has one code a feature vector; set depth {depth} to 1")
    return KINDS[kind](codebook_size, width, depth, **options)
