"""Which of several drawn pictures follow their caption best, by the model that drew them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.losses import cross_entropy


@partial(jax.jit, static_argnames=("predict", "model"))
def likelihood_ratio(predict: Callable, model, params, batch: dict) -> Float[Array, "B"]:
    """log p(ids | caption) - log p(ids | no caption), in nats a picture.

    What a caption makes likelier than it is anyway: the pointwise mutual information of the two, which guidance
    (Ho & Salimans 2022, section 3.2) raises token by token.

    Args:
      predict: the task's, `(model, params, variables, batch, null) -> {"logits": [B, N, K]}`.
      model, params: of the run; trained with captions dropped.
      batch: `ids` [B, N] in [0, K), `text_ids` [B, S] and `text_mask` [B, S].
    """
    count = len(batch["ids"])

    def surprise(null):
        return jnp.sum(cross_entropy(predict(model, params, {}, batch, null)["logits"], batch["ids"]), -1)

    return surprise(jnp.ones(count, bool)) - surprise(jnp.zeros(count, bool))
