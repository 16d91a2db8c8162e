"""Fill in masked image tokens (Chang et al. 2022, "MaskGIT", section 3.1)."""

import jax
import jax.numpy as jnp

from t2i_jax import losses
from t2i_jax.tasks.tokens import TokenTask


def draw_masked(key, shape: tuple[int, int]):
    """Bool[B, N], True at ceil(r N) positions of each row; r = cos(pi u / 2), u uniform in (0, 1)."""
    ratio_key, order_key = jax.random.split(key)
    ratio = jnp.cos(jnp.pi / 2 * jax.random.uniform(ratio_key, (shape[0], 1)))
    count = jnp.clip(jnp.ceil(ratio * shape[1]), 1, shape[1])
    order = jax.random.uniform(order_key, shape).argsort(-1).argsort(-1)
    return order < count


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the masked tokens, in nats a masked token (equation 1).

    Args:
      batch: see `TokenTask.transform`.

    Returns:
      loss, (variables, metrics).
    """
    ids = batch["ids"]
    masked = draw_masked(rngs["noise"], ids.shape)
    inputs = batch["text_ids"], batch["text_mask"], jnp.where(masked, model.codebook_size, ids), batch["null"]
    logits = model.apply({"params": params}, *inputs, train=train, rngs=rngs, method="reveal")
    loss = jnp.sum(losses.cross_entropy(logits, ids) * masked) / masked.sum()
    right = jnp.sum((logits.argmax(-1) == ids) & masked) / masked.sum()
    return loss, (variables, {"loss": loss, "accuracy": right, "masked": masked.mean()})


class Task(TokenTask):
    """Cross entropy at masked positions."""

    loss_fn = staticmethod(loss_fn)
