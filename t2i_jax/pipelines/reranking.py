"""Which of several images of a caption follow it best, by the model that sampled them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.losses import cross_entropy


@partial(jax.jit, static_argnames="model")
def likelihood_ratio(
    model, params, ids: Int[Array, "B N"], text_ids: Int[Array, "B S"], text_mask: Bool[Array, "B S"]
) -> Float[Array, "B"]:
    """log p(ids | caption) - log p(ids | no caption), in nats an image.

    What a caption makes likelier than it is anyway: the pointwise mutual information of the two, which guidance
    (Ho & Salimans 2022, section 3.2) raises token by token.

    Args:
      model: captions and ids -> logits, each from the ids before it.
      params: its parameters, trained with captions dropped.
      ids: in [0, K).
      text_ids, text_mask: captions.
    """
    count = len(ids)

    def negative_log_likelihood(null):
        logits = model.apply({"params": params}, text_ids, text_mask, ids, null)
        return jnp.sum(cross_entropy(logits, ids), -1)

    return negative_log_likelihood(jnp.ones(count, bool)) - negative_log_likelihood(jnp.zeros(count, bool))


def best(ids: Int[np.ndarray, "M N"], scores: Float[np.ndarray, "M"], count: int, kept: int) -> np.ndarray:
    """Ids of the `kept` highest scores, the best first, among every `count` candidates that follow each other."""
    order = np.argsort(-scores.reshape(-1, count), axis=1, kind="stable")[:, :kept]
    return ids[(order + count * np.arange(len(order))[:, None]).reshape(-1)]
