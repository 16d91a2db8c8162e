"""Parts that transformers have alike, made from the fields that they share."""

import flax.linen as nn

from t2i_jax.nn.dense import normal_init
from t2i_jax.nn.stack import Stack


def embedding(model: nn.Module, rows: int) -> nn.Embed:
    """A table of `rows` embeddings of a model's `width` and `dtype`."""
    return nn.Embed(rows, model.width, embedding_init=normal_init(model.width), dtype=model.dtype)


def stack(model: nn.Module, layers: int, activation: str, **options) -> Stack:
    """So many layers of a model's `width`, `heads`, `mlp_width`, `dropout`, `remat`, `unroll` and `dtype`.

    Args:
      options: other fields of `Stack`.
    """
    names = ("width", "heads", "mlp_width", "dropout", "remat", "unroll", "dtype")
    shared = {name: getattr(model, name) for name in names if hasattr(model, name)}
    return Stack(layers, activation=activation, **shared, **options)
