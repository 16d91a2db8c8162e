"""Normalisation."""

import flax.linen as nn


def layer_norm(epsilon: float, dtype: str, name: str | None = None) -> nn.LayerNorm:
    """Layer normalisation (Ba et al. 2016) with scale and bias, statistics in float32."""
    # The two-pass variance: the fast one loses digits where the mean is large.
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
