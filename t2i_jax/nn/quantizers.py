"""Quantizers: features -> codes and ids, with a gradient to the features.

All answer alike: `__call__`, `to_code_space` (features as they are compared with codes) and `codebook` (codes in
the space of the features); `make` builds one by the name of its kind. Warm starts and restarts of codebooks are in
`codebooks.py`.

Letters: B batch, N feature vectors an image, D their width, d width of the code space, K codebook size.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from t2i_jax.nn.codebooks import codebook_of, residual_codes
from t2i_jax.nn.estimators import Quantized, normalise, rotate, straight_through
from t2i_jax.nn.fsq import FSQ
from t2i_jax.nn.gumbel import GumbelQuantizer


class CodebookQuantizer(nn.Module):
    """Nearest codes of a codebook that follows the features.

    By exponential moving averages (EMA; van den Oord et al. 2017, appendix A.1): of the cluster size (the fraction
    of features that a code stands for) and of the embedding sum (of those features, over their total number). Both
    are linear in the batch: averaging them over devices gives what one device with all of it would have computed.
    Or by gradients (eq. 3, second term), with the codes a parameter.

    Attributes:
      codebook_size: K.
      width: D, of the features.
      residual_depth: codes a feature vector; their sum stands for it (see `codebooks.residual_codes`).
      learned: codes are a parameter, moved by gradients.
      estimator: of the gradient to the features, `straight_through` or `rotate`.
      lookup_width: d, of the code space; 0 is that of the features, otherwise they are projected to d, and features
        and codes have length 1 (Yu et al. 2022, "Vector-quantized image modeling with improved VQGAN", 3.2).
      decay: weight of the past in the EMA statistics, in (0, 1).
      commitment: weight of the commitment loss (van den Oord et al. 2017, eq. 3, third term).
    """

    codebook_size: int
    width: int
    residual_depth: int = 1
    learned: bool = False
    estimator: Callable = straight_through
    lookup_width: int = 0
    decay: float = 0.99
    commitment: float = 0.25

    def setup(self):
        size, width = self.codebook_size, self.lookup_width or self.width
        self.cluster_size = self.variable("codebook", "cluster_size", lambda: jnp.full((size,), 1 / size))
        if self.learned:
            self.codes = self.param("codes", nn.initializers.normal(1.0), (size, width))
        else:
            self.embedding_sum = self.variable(
                "codebook",
                "embedding_sum",
                lambda: jax.random.normal(self.make_rng("params"), (size, width)) / size,
            )
        if self.lookup_width:
            self.down = nn.Dense(width, use_bias=False)
            self.up = nn.Dense(self.width, use_bias=False)

    def to_code_space(self, features: Float[Array, "B N D"]) -> Float[Array, "B N d"]:
        """Features as they are compared with codes."""
        x = features.astype(jnp.float32)
        return normalise(self.down(x)) if self.lookup_width else x

    def __call__(self, features: Float[Array, "B N D"], *, train: bool = False) -> Quantized:
        """Quantize; `train` moves the EMA statistics (collection `codebook` must be mutable)."""
        x, codebook = self.to_code_space(features), self.code_space_codebook()
        fixed = jax.lax.stop_gradient(x)
        ids, residuals = residual_codes(fixed, jax.lax.stop_gradient(codebook), self.residual_depth)
        codes = codebook[ids].sum(-2)
        loss = self.commitment * (x - jax.lax.stop_gradient(codes)) ** 2
        if self.learned:
            loss = loss + (codes - fixed) ** 2
        if train and not self.is_initializing():
            self._update(residuals.reshape(-1, residuals.shape[-1]), ids.reshape(-1))
        out = self._from_code_space(self.estimator(x, jax.lax.stop_gradient(codes)))
        return Quantized(out.astype(features.dtype), ids.reshape(len(ids), -1), jnp.mean(loss, (-2, -1)))

    def codebook(self) -> Float[Array, "K D"]:
        """The codes, in the space of the features."""
        return self._from_code_space(self.code_space_codebook())

    def code_space_codebook(self) -> Float[Array, "K d"]:
        """The codes, as features are compared with them; of length 1 where those are."""
        if self.learned:
            codebook = self.codes
        else:
            statistics = {"cluster_size": self.cluster_size.value, "embedding_sum": self.embedding_sum.value}
            codebook = codebook_of(statistics)
        return normalise(codebook) if self.lookup_width else codebook

    def _from_code_space(self, codes):
        return self.up(codes) if self.lookup_width else codes

    def _update(self, vectors, ids):
        """Move the EMA statistics towards those of a batch."""
        size = self.codebook_size
        # A code unused for thousands of steps stops fading before its average underflows.
        keep = jnp.where(self.cluster_size.value * size < 1e-6, 1.0, self.decay)
        used = jnp.zeros(size).at[ids].add(1.0) / ids.size
        self.cluster_size.value = keep * self.cluster_size.value + (1 - self.decay) * used
        if not self.learned:
            summed = jnp.zeros_like(self.embedding_sum.value).at[ids].add(vectors) / ids.size
            self.embedding_sum.value = keep[:, None] * self.embedding_sum.value + (1 - self.decay) * summed


KINDS = {
    "ema": CodebookQuantizer,
    "gradient": partial(CodebookQuantizer, learned=True),
    "l2": partial(CodebookQuantizer, lookup_width=8),
    "rotation": partial(CodebookQuantizer, estimator=rotate),
    "gumbel": GumbelQuantizer,
    "fsq": FSQ,
}


def make(kind: str, codebook_size: int, width: int, residual_depth: int = 1, **options) -> nn.Module:
    """A quantizer by the name of its kind.

    Args:
      kind: a key of `KINDS`.
      codebook_size: K.
      width: D, of the features.
      residual_depth: codes a feature vector; above 1 only for kinds with a codebook.
      options: other fields of the kind.

    Raises:
      ValueError: no such kind, or a depth that it has not.
      TypeError: no such option.
    """
    if kind not in KINDS:
        raise ValueError(f"quantizer {kind!r} is unknown; choose {', '.join(KINDS)}")
    if residual_depth == 1:
        return KINDS[kind](codebook_size, width, **options)
    if KINDS[kind] in (GumbelQuantizer, FSQ):
        raise ValueError(
            f"quantizer {kind!r} has one code a feature vector; set residual_depth {residual_depth} to 1"
        )
    return KINDS[kind](codebook_size, width, residual_depth, **options)
