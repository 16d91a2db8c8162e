"""Parts that transformers have alike, made from the fields that they share."""

import flax.linen as nn

from t2i_jax.nn.dense import normal_init
from t2i_jax.nn.stack import Stack


def embedding(model: nn.Module, rows: int) -> nn.Embed:
    """A table of `rows` embeddings of a model's `width`, read in float32.

    Who adds embeddings rounds their sum to the model's type, so that the gradients of a row that is read at many
    positions are summed in float32. In bfloat16 much of a long sum is lost, and an H200 spent 46 of 237 ms of a
    step on it.
    """
    return nn.Embed(rows, model.width, embedding_init=normal_init(model.width))


def stack(model: nn.Module, layers: int, activation: str, **options) -> Stack:
    """So many layers with a model's width, heads, MLP, rates of dropout, remat, unroll and type.

    Args:
      options: other fields of `Stack`.
    """
    names = ("width", "heads", "mlp_width", "dropout", "attention_dropout", "remat", "unroll", "dtype")
    shared = {name: getattr(model, name) for name in names if hasattr(model, name)}
    return Stack(layers, activation=activation, **shared, **options)
