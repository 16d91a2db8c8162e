"""What a model thinks of an image that it drew: how sure it was of each token, and which words it looked at."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.nn.attention import Attention, causal_mask, weigh
from t2i_jax.nn.blocks import in_blocks
from t2i_jax.nn.stack import Layer, unstack


class Insight(NamedTuple):
    """Images of a prompt, and what their model thought of them.

    Attributes:
      images: uint8 [n, H, W, C].
      entropy: float32 [n, N], in nats: of the model's distribution of each token, given the prompt and the tokens
        before it, among the ids that may stand there. Before guidance, temperature and filters, which the draw has.
      attention: float32 [n, N, W], how much the position that gives a token looks at each word; sums to 1 over the
        words. The mean over layers and heads of the weights of cross attention (in a decoder-only model, of the
        attention of image positions to the text), summed over the pieces of a word. What goes to the pieces that a
        text tokenizer adds, to pads and to the image itself is left out. None where no layer attends to text.
      words: W words of the prompt; signs are words, too.
      cells: N tuples y0, x0, y1, x1 in pixels, where each token stands.
    """

    images: np.ndarray
    entropy: np.ndarray
    attention: np.ndarray | None
    words: list[str]
    cells: list[tuple[int, int, int, int]]


@partial(jax.jit, static_argnames="model")
def look(
    model,
    params,
    text_ids: Int[Array, "B S"],
    text_mask: Bool[Array, "B S"],
    ids: Int[Array, "B N"],
    valid: Bool[Array, "N K"] | None = None,
) -> Float[Array, "B N _"]:
    """The entropy of every token, and behind it the attention to S pieces of text, where the model has any.

    One pass under teacher forcing. Attention weights are computed beside the model, from what its attention layers
    are given, so that nothing of them is in the program of anything else.
    """
    found = []

    def watch(call, args, kwargs, context):
        module = context.module
        if isinstance(module, Attention) and context.method_name == "__call__":
            found.extend(_to_text(module, *args, text_ids.shape[1], ids.shape[1]))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):  # written out, for no value leaves a scan this way
        logits = model.apply({"params": unstack(params)}, text_ids, text_mask, ids)
    log_p = jax.nn.log_softmax(logits if valid is None else jnp.where(valid, logits, -jnp.inf))
    seen = [-jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0).sum(-1, keepdims=True)]
    if found:
        seen.append(sum(found) / len(found))
    return jnp.concatenate(seen, -1)


def _to_text(module, x, memory, mask, text, image) -> list[Float[Array, "B N S"]]:
    """Mean over heads of the weights of N image positions on S pieces of text; none of attention to others."""
    own = isinstance(module.parent, Layer) and module.name == "attn"
    if x.shape[1] != (text + image if own else image):
        return []
    if mask is None:
        mask = causal_mask(x.shape[1], memory.key.shape[1])
    query, mask = module.split(module.query(x))[:, -image:], mask[:, 0]
    mask = mask[:, -image:] if mask.shape[1] > 1 else mask

    def read(query, mask, _):
        return weigh(query, memory.key, mask, module.heads).mean(1)[..., :text]

    rows, keys, _ = memory.key.shape
    return [in_blocks(read, (query, mask), rows * keys)]


def attention_to_words(
    weights: Float[np.ndarray, "B N S"], words: Sequence[Sequence[int]]
) -> Float[np.ndarray, "B N W"]:
    """Weights of pieces summed into W words, each of which has pieces at some places, and scaled to a sum of 1."""
    summed = np.stack([weights[..., list(places)].sum(-1) for places in words], -1)
    summed += np.finfo(summed.dtype).tiny  # where nothing goes to any word, it goes to all alike
    return summed / summed.sum(-1, keepdims=True)
