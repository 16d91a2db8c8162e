"""A model's logits one position after the other, by its cache."""

import jax
import jax.numpy as jnp

from t2i_jax.models.translator import shift_right


def cached_logits(model, params, text_ids, mask, null, ids):
    """What `decode_step` gives at each position after the true ids before it, [B, N, K], and the cache's shapes.

    A scan refuses a cache that changes its shapes.
    """

    @jax.jit
    def start(variables):
        memory = model.apply(variables, text_ids, mask, null, method="encode")
        return model.apply(variables, *memory, method="init_cache")

    @jax.jit
    def decode(variables, cache):
        def advance(cache, at):
            ids, position = at
            logits, cache = model.apply(variables, ids[:, None], position, cache, method="decode_step")
            return cache, logits[:, 0]

        given = shift_right(jnp.asarray(ids), model.codebook_size)
        return jax.lax.scan(advance, cache, (given.T, jnp.arange(ids.shape[1])))[1].swapaxes(0, 1)

    cache = start({"params": params})
    return decode({"params": params}, cache), [leaf.shape for leaf in jax.tree.leaves(cache)]
