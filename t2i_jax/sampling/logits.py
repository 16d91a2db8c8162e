"""What happens to logits before an id is drawn: pure functions of arrays; every setting may be traced."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike


def apply_guidance(
    cond: Float[Array, "*B K"], uncond: Float[Array, "*B K"], scale: ScalarLike
) -> Float[Array, "*B K"]:
    """Classifier-free guidance: `uncond + scale * (cond - uncond)`; scale 1 is `cond`, 0 is `uncond`.

    Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6 with scale = 1 + w, on logits.
    """
    # At exactly 1 the sum would miss `cond` by a rounding, and 1 promises to change nothing.
    return jnp.where(jnp.asarray(scale) == 1, cond, uncond + scale * (cond - uncond))


def apply_temperature(logits: Float[Array, "*B K"], temperature: ScalarLike) -> Float[Array, "*B K"]:
    """Logits over a temperature > 0, shifted so that the largest is 0 and none overflows upwards."""
    tiny = jnp.finfo(logits.dtype).tiny
    return (logits - logits.max(-1, keepdims=True)) / jnp.maximum(temperature, tiny).astype(logits.dtype)


def keep_top(logits: Float[Array, "*B K"], k: ScalarLike = 0, p: ScalarLike = 1.0) -> Float[Array, "*B K"]:
    """Top-k, then top-p of what it leaves: keep the largest logits of each row and set the others to -inf.

    Args:
      logits: of equal ones the lower id counts as larger, as in argmax.
      k: keep the k largest (Fan et al. 2018, section 5), a whole number >= 0; 0 keeps all, and so does k >= K.
      p: keep the fewest of these whose probability among them reaches p (nucleus sampling, Holtzman et al. 2020,
        section 3.1, equation 2), 0 < p <= 1, at least one; 1 keeps all.
    """
    size = logits.shape[-1]
    k = jnp.where(jnp.asarray(k) == 0, size, jnp.minimum(k, size))
    ordered = jnp.sort(logits, descending=True)
    probabilities = jax.nn.softmax(jnp.where(jnp.arange(size) < k, ordered, -jnp.inf))
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    count = jnp.where(jnp.asarray(p) >= 1, k, jnp.clip((before < p).sum(-1), 1, k))
    smallest_kept = jnp.take_along_axis(ordered, count[..., None] - 1, axis=-1)
    larger, equal = logits > smallest_kept, logits == smallest_kept
    places = count[..., None] - larger.sum(-1, keepdims=True)
    return jnp.where(larger | (equal & (jnp.cumsum(equal, axis=-1) <= places)), logits, -jnp.inf)


def keep_min_p(logits: Float[Array, "*B K"], p: ScalarLike) -> Float[Array, "*B K"]:
    """Keep the ids at least p times as likely as the likeliest; set the others to -inf.

    Min-p sampling (Nguyen et al. 2024, "Turning Up the Heat", section 3). 0 <= p <= 1; 0 keeps all, 1 only the
    likeliest (and its equals). Where the model is sure few ids remain, where it is not many do, in proportion.
    """
    floor = jnp.log(jnp.asarray(p, logits.dtype))  # -inf for 0
    return jnp.where(logits - logits.max(-1, keepdims=True) >= floor, logits, -jnp.inf)
