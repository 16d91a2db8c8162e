"""Drawing image tokens one after another from a cached step; knows no model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, ScalarLike

from t2i_jax.sampling.logits import apply_guidance, apply_temperature, keep_min_p, keep_top_k, keep_top_p


def draw(
    keys: Key[Array, " B"],
    logits: Float[Array, "B K"],
    temperature: ScalarLike,
    top_k: ScalarLike,
    top_p: ScalarLike,
    min_p: ScalarLike,
) -> Int[Array, " B"]:
    """Draw one id in [0, K) for each row with that row's key: temperature, then top-k, top-p and min-p.

    Temperature 0 takes the likeliest id, the lowest among equals. The ranges are those of `Sampling`.
    """

    def filtered(scaled):
        return keep_top_p(keep_top_k(scaled, top_k), top_p)

    def drawn(logits):
        scaled = apply_temperature(logits, temperature)
        # Only a setting that is on pays for the sorting.
        scaled = jax.lax.cond((top_k > 0) | (top_p < 1), filtered, lambda scaled: scaled, scaled)
        return jax.vmap(jax.random.categorical)(keys, keep_min_p(scaled, min_p)).astype(jnp.int32)

    def greedy(logits):
        return logits.argmax(-1).astype(jnp.int32)

    return jax.lax.cond(temperature == 0, greedy, drawn, logits)


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
    plain_tokens: ScalarLike,
    guidance_scale: ScalarLike | None = None,
) -> Int[Array, "B {length}"]:
    """Draw `length` ids for each picture, each from the logits that follow the ids before it.

    The settings may be traced: under jit, another value of any of them does not compile again.

    Args:
      step: `(ids Int[B'], position Int[], cache) -> (logits Float[B', K], cache)`, the cache of static shape.
      cache: for B' rows. With guidance B' = 2B: the rows that read their captions, then, in the same order,
        those that read the null caption. Both are fed the same ids. Without, B' = B.
      keys: one random key a picture. The draw at a position uses `fold_in(key, position)`, so a picture's
        random stream does not depend on its place or company.
      length: ids to draw, at most what the cache holds.
      start_id: the step's input at position 0.
      temperature: >= 0; 0 is greedy.
      top_k: whole number >= 0; 0 is off.
      top_p: in (0, 1]; 1 is off.
      min_p: in [0, 1]; 0 is off.
      plain_tokens: whole number >= 0; as many leading ids are drawn as the model believes them: at temperature 1,
        without guidance, top-k and top-p. Min-p holds for all.
      guidance_scale: >= 0, applied before all else; None for no guidance.

    Returns:
      int32 ids in [0, K).
    """
    guided = guidance_scale is not None

    def advance(carry, position):
        ids, cache = carry
        plain = position < plain_tokens
        logits, cache = step(jnp.concatenate([ids, ids]) if guided else ids, position, cache)
        if guided:
            scale = jnp.where(plain, 1, guidance_scale)
            logits = apply_guidance(*jnp.split(logits, 2), scale)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        settings = [(temperature, 1), (top_k, 0), (top_p, 1)]
        ids = draw(step_keys, logits, *(jnp.where(plain, off, value) for value, off in settings), min_p)
        return (ids, cache), ids

    start = jnp.full(keys.shape, start_id, jnp.int32)
    _, ids = jax.lax.scan(advance, (start, cache), jnp.arange(length))
    return ids.T
