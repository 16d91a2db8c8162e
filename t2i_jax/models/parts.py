"""Parts that transformers have alike, made from the fields that they share."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from t2i_jax.nn.dense import normal_init
from t2i_jax.nn.stack import Stack


class Embedding(nn.Module):
    """A table of embeddings, whose rows are rounded to `dtype` once they are read.

    So the gradients of a row that is read at many positions are summed in float32. In bfloat16 much of a long sum
    is lost, and an H200 spent 45 of 237 ms of a step on it.

    Attributes:
      rows: V.
      width: D.
      embedding_init: of the table [V, D].
      dtype: of what is read.
    """

    rows: int
    width: int
    embedding_init: Callable
    dtype: str = "float32"

    def setup(self):
        self.embedding = self.param("embedding", self.embedding_init, (self.rows, self.width))

    def __call__(self, ids: Int[ArrayLike, "*B"]) -> Float[Array, "*B D"]:
        return jnp.take(self.embedding, jnp.asarray(ids), axis=0).astype(self.dtype)


def embedding(model: nn.Module, rows: int) -> Embedding:
    """A table of `rows` embeddings of a model's `width` and `dtype`."""
    return Embedding(rows, model.width, normal_init(model.width), model.dtype)


def stack(model: nn.Module, layers: int, activation: str, **options) -> Stack:
    """So many layers with a model's width, heads, MLP, rates of dropout, remat, unroll and type.

    Args:
      options: other fields of `Stack`.
    """
    names = ("width", "heads", "mlp_width", "dropout", "attention_dropout", "remat", "unroll", "dtype")
    shared = {name: getattr(model, name) for name in names if hasattr(model, name)}
    return Stack(layers, activation=activation, **shared, **options)
