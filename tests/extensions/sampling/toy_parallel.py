"""Many ids at a time, the surest first (Chang et al. 2022, "MaskGIT", section 3.3)."""

from dataclasses import dataclass
from functools import cache, partial
from numbers import Real

from t2i_jax.sampling.settings import Settings, setting


@dataclass(frozen=True)
class Sampler(Settings):
    """Iterative parallel decoding: ids are drawn for all masked positions, and the least sure masked again."""

    steps: Real = setting(8, "passes of the model", "give a whole number from 1 up", whole=True, above_zero=True)
    temperature: Real = setting(1.0, "divides the logits; 0 is greedy", "give a value from 0 (greedy) up")
    choice_noise: Real = setting(
        4.5, "Gumbel noise on how sure an id is, down to 0 at the last pass", "give a value from 0 (none) up"
    )

    def draw(self, model, params, condition: tuple, keys, valid=None, rows=None):
        """Token ids of B images, as `Autoregressive.draw`, by a model that answers `encode` and `predict`."""
        return compiled()(model, params, condition, keys, vars(self), valid, rows)


@cache
def compiled():
    """The decoding, built at its first use: `t2i --help` must not pay for jax."""
    import jax
    import jax.numpy as jnp

    from t2i_jax.sampling.decoding import sample_ids

    @partial(jax.jit, static_argnames="model")
    def decode(model, params, condition, keys, settings, valid, rows):
        bound, length, mask_id = partial(model.apply, {"params": params}), model.num_tokens, model.codebook_size
        memory, steps = bound(*condition, method="encode"), settings["steps"]
        memory = memory if rows is None else jax.tree.map(lambda x: x[rows], memory)

        def unmask(number, ids):
            logits, masked = bound(ids, *memory, method="predict"), ids == mask_id
            logits = logits if valid is None else jnp.where(valid, logits, -jnp.inf)
            own = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number), length + 1))(keys)
            flat = own[:, 1:].reshape(-1), logits.reshape(-1, logits.shape[-1])
            drawn = sample_ids(*flat, settings["temperature"], 0, 1.0, 0.0).reshape(ids.shape)
            drawn = jnp.where(masked, drawn, ids)
            done = (number + 1) / steps
            sure = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], -1)[..., 0]
            noise = jax.vmap(lambda key: jax.random.gumbel(key, (length,)))(own[:, 0])
            sure = jnp.where(masked, sure + settings["choice_noise"] * (1 - done) * noise, jnp.inf)
            count = jnp.floor(length * jnp.cos(jnp.pi / 2 * done))
            count = jnp.clip(count, 0, masked.sum(-1, keepdims=True) - 1)  # at least one a pass
            count = jnp.where(number + 1 == steps, 0, count)
            return jnp.where(sure.argsort(-1).argsort(-1) < count, mask_id, drawn)

        return jax.lax.fori_loop(0, steps, unmask, jnp.full((len(keys), length), mask_id, jnp.int32))

    return decode
