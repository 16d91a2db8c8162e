"""The arrays of autoregressive sampling: a cached step -> logits -> ids."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, ScalarLike

from t2i_jax.nn.stack import unstack
from t2i_jax.sampling.logits import apply_guidance, apply_temperature, keep_min_p, keep_top


def sample_ids(
    keys: Key[Array, " B"],
    logits: Float[Array, "B K"],
    temperature: ScalarLike,
    top_k: ScalarLike,
    top_p: ScalarLike,
    min_p: ScalarLike,
) -> Int[Array, " B"]:
    """One id in [0, K) for each row with that row's key: temperature, then top-k, top-p and min-p.

    Temperature 0 takes the likeliest id, the lowest among equals. The ranges are those of `Autoregressive`.
    """

    def sampled(logits):
        scaled = apply_temperature(logits, temperature)
        # Only a setting that is on pays for the sorting.
        kept = partial(keep_top, k=top_k, p=top_p)
        scaled = jax.lax.cond((top_k > 0) | (top_p < 1), kept, lambda scaled: scaled, scaled)
        return jax.vmap(jax.random.categorical)(keys, keep_min_p(scaled, min_p)).astype(jnp.int32)

    def greedy(logits):
        return logits.argmax(-1).astype(jnp.int32)

    return jax.lax.cond(temperature == 0, greedy, sampled, logits)


def sample_tokens(
    step: Callable,
    cache: Any,
    keys: Key[Array, " B"],
    *,
    length: int,
    start_id: int,
    temperature: ScalarLike,
    top_k: ScalarLike,
    top_p: ScalarLike,
    min_p: ScalarLike,
    unguided_tokens: ScalarLike,
    guidance_scale: ScalarLike | None = None,
    valid: Bool[Array, "{length} K"] | None = None,
) -> Int[Array, "B {length}"]:
    """Sample `length` ids for each image, each from the logits that follow the ids before it.

    The settings may be traced: under jit, another value of any of them does not compile again.

    Args:
      step: `(ids Int[B'], position Int[], cache) -> (logits Float[B', K], cache)`, the cache of static shape.
      cache: for B' rows. With guidance B' = 2B: row 2i reads the caption of image i, row 2i + 1 the null caption
        (side by side, so that both lie on one device), and both are fed the same ids. Without, B' = B.
      keys: one random key an image. A position uses `fold_in(key, position)`, so an image's random stream depends
        neither on its index nor on the rest of the batch.
      length: ids to sample, at most what the cache holds.
      start_id: the step's input at position 0.
      temperature, top_k, top_p, min_p, unguided_tokens: see `Autoregressive`.
      guidance_scale: >= 0, applied before all else; None for no guidance.
      valid: which ids may stand at each position, at least one; None for all.

    Returns:
      int32 ids in [0, K).
    """
    guided = guidance_scale is not None

    def advance(carry, position):
        ids, cache = carry
        unguided = position < unguided_tokens
        logits, cache = step(jnp.repeat(ids, 2) if guided else ids, position, cache)
        if guided:
            scale = jnp.where(unguided, 1, guidance_scale)
            pairs = logits.reshape(-1, 2, logits.shape[-1])
            logits = apply_guidance(pairs[:, 0], pairs[:, 1], scale)
        if valid is not None:
            logits = jnp.where(valid[position], logits, -jnp.inf)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        settings = [(temperature, 1), (top_k, 0), (top_p, 1)]
        ids = sample_ids(step_keys, logits, *(jnp.where(unguided, off, value) for value, off in settings), min_p)
        return (ids, cache), ids

    start = jnp.full(keys.shape, start_id, jnp.int32)
    _, ids = jax.lax.scan(advance, (start, cache), jnp.arange(length))
    return ids.T


@partial(jax.jit, static_argnames=("model", "guided"))
def decode(model, params, condition: tuple, keys, settings: dict, valid=None, *, guided: bool):
    """`Autoregressive.draw`, compiled; the settings are traced.

    Args:
      guided: False leaves out the rows of the null caption; for guidance scale 1.
    """
    bound, settings = partial(model.apply, {"params": unstack(params)}), dict(settings)
    if guided:
        condition = tuple(jnp.repeat(jnp.asarray(rows), 2, axis=0) for rows in condition)
        text_ids, text_mask, null = condition
        condition = text_ids, text_mask, null | (jnp.arange(len(null)) % 2 == 1)
    else:
        del settings["guidance_scale"]
    memory, memory_mask = bound(*condition, method="encode")
    return sample_tokens(
        partial(bound, method="decode_step"),
        bound(memory, memory_mask, method="init_cache"),
        keys,
        length=model.num_tokens,
        start_id=model.codebook_size,
        valid=valid,
        **settings,
    )
