"""Sampling of captions' image tokens by one compiled function."""

from functools import partial

import jax
import jax.numpy as jnp

from t2i_jax.sampling.autoregressive import sample_tokens


@partial(jax.jit, static_argnames=("model", "guided"))
def sample(model, params, text_ids, text_mask, keys, settings: dict, *, guided: bool, null):
    """Draw the image tokens of captions: one compiled function, whatever the settings.

    Args:
      model: with `encode`, `init_cache` and `decode_step`, such as a `models.translator.Model`.
      params: its parameters.
      text_ids: [B, S] in [0, V).
      text_mask: [B, S].
      keys: [B], one random key a picture.
      settings: the fields of `sampling.settings.Sampling`.
      guided: False leaves out the unconditional half of the batch; for guidance scale 1.
      null: [B], True for pictures of no caption; guidance does not change those.

    Returns:
      int32 ids [B, N] in [0, K).
    """
    bound = partial(model.apply, {"params": params})
    settings = dict(settings)
    if guided:
        text_ids, text_mask = jnp.tile(text_ids, (2, 1)), jnp.tile(text_mask, (2, 1))
        null = jnp.concatenate([null, jnp.ones_like(null)])
    else:
        del settings["guidance_scale"]
    memory, memory_mask = bound(text_ids, text_mask, null, method="encode")
    return sample_tokens(
        partial(bound, method="decode_step"),
        bound(memory, memory_mask, method="init_cache"),
        keys,
        length=model.num_tokens,
        start_id=model.codebook_size,
        **settings,
    )
