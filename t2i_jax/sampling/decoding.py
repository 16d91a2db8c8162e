"""The arrays of autoregressive sampling: logits of the next ids -> ids."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, ScalarLike

from t2i_jax.nn.stack import unstack, with_bits
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


class Drawing(NamedTuple):
    """Images of which the leading ids are drawn.

    Attributes:
      ids: int32 [B, N] in [0, K). Those from `done` on are drafts: ids of some position, no more.
      passes: Int[], of the model, at most as many as ids were drawn.
      done: Int[], how many ids of each image are drawn.
      cache: with the inputs of these positions written.
    """

    ids: Array
    passes: Array
    done: Array
    cache: Any


def sample_tokens(
    tokens_to_logits: Callable,
    cache: Any,
    keys: Key[Array, " B"],
    *,
    length: int,
    start_id: int,
    temperature: ScalarLike = 1.0,
    top_k: ScalarLike = 0,
    top_p: ScalarLike = 1.0,
    min_p: ScalarLike = 0.0,
    unguided_tokens: ScalarLike = 0,
    guidance_scale: ScalarLike | None = None,
    valid: Bool[Array, "{length} K"] | None = None,
    window: int = 1,
    ids: Int[Array, "B {length}"] | None = None,
    done: ScalarLike = 0,
    until: ScalarLike | None = None,
) -> Drawing:
    """Sample `length` ids for each image, each from the logits that follow the ids before it.

    A position's noise is fixed by its key, so an image's ids are the only ones that give themselves: each is what
    is drawn when those before it are the input. A pass takes `window` positions, of which the first has the right
    input and the others drafts. It draws them all, and goes on behind the longest stretch whose drafts came out as
    they went in, in every image; what it drew behind that are the next drafts. So a pass settles at least one id,
    and the ids are those of window 1. (Jacobi iteration: Song et al. 2021, "Accelerating Feedforward Computation
    via Parallel Nonlinear Equation Solving"; of draws with fixed noise: Wiggers & Hoogeboom 2020, "Predictive
    Sampling with Forecasting Autoregressive Models", there "ARM fixed-point iteration".)

    Another window computes the same logits with other rounding: where two ids are as close as that, a draw may take
    the other one, and what follows is another image, just as likely.

    The settings may be traced: under jit, another value of any of them does not compile again, except of `window`.
    Left out, they draw from the softmax of the logits.

    Args:
      tokens_to_logits: `(ids Int[B', Q], position Int[], cache) -> (logits Float[B', Q, K], cache)`, of the Q
        positions from `position` on; the cache of static shape. It must not matter what the cache holds of these
        and later ones.
      cache: for B' rows. With guidance B' = 2B: row 2i reads the caption of image i, row 2i + 1 the null caption
        (side by side, so that both lie on one device), and both are fed the same ids. Without, B' = B.
      keys: one random key an image. A position uses `fold_in(key, position)`, so an image's random stream depends
        neither on its index nor on the rest of the batch.
      length: ids to sample, at most what the cache holds.
      start_id: the input at position 0.
      temperature, top_k, top_p, min_p, unguided_tokens: see `Autoregressive`.
      guidance_scale: >= 0, applied before all else; None for no guidance.
      valid: which ids may stand at each position, at least one; None for all.
      window: Q, 1 to `length`.
      ids, done: go on with a `Drawing` of the same settings, whose cache is `cache`; None, and 0, begin.
      until: draw so many ids of each image, or, with a window above 1, a few more; None draws all.
    """
    guided = guidance_scale is not None

    def draw(at):
        """Ids [B] of one position, from its logits [B', K]."""
        position, logits = at
        unguided = position < unguided_tokens
        if guided:
            scale = jnp.where(unguided, 1, guidance_scale)
            pairs = logits.reshape(-1, 2, logits.shape[-1])
            logits = apply_guidance(pairs[:, 0], pairs[:, 1], scale)
        if valid is not None:
            logits = jnp.where(valid[position], logits, -jnp.inf)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        settings = [(temperature, 1), (top_k, 0), (top_p, 1)]
        return sample_ids(step_keys, logits, *(jnp.where(unguided, off, value) for value, off in settings), min_p)

    def advance(state):
        """One pass. `tokens` [B, 1 + length]: `start_id`, then ids, those at `done` and behind it drafts."""
        tokens, done, cache, passes = state
        first = jnp.minimum(done, length - window)  # the last windows overlap what is done
        given = jax.lax.dynamic_slice_in_dim(tokens, first, window + 1, axis=1)
        ids, drafts = given[:, :-1], given[:, 1:]
        logits, cache = tokens_to_logits(jnp.repeat(ids, 2, axis=0) if guided else ids, first, cache)
        positions = first + jnp.arange(window)
        drawn = jax.lax.map(draw, (positions, logits.swapaxes(0, 1))).T
        drawn = jnp.where(positions < done, drafts, drawn)
        right = (drawn == drafts).all(0)[:-1]  # an id that came out as it went in: the one behind it is right too
        tokens = jnp.where(jnp.arange(length + 1) > first + window, drawn[:, -1:], tokens)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, drawn, first + 1, axis=1)
        return tokens, first + 1 + jnp.cumprod(right).sum(), cache, passes + 1

    ids = jnp.zeros((len(keys), length), jnp.int32) if ids is None else ids
    tokens = jnp.pad(ids, ((0, 0), (1, 0)), constant_values=start_id)
    state = tokens, jnp.asarray(done, jnp.int32), cache, jnp.int32(0)
    # Inside `shard_map` a loop must start with what differs between devices, as its results do.
    any_key = jax.random.key_data(keys).ravel()[0] == 0
    state = jax.tree.map(lambda x: jnp.where(any_key, x, x), state)
    until = length if until is None else until
    tokens, done, cache, passes = jax.lax.while_loop(lambda state: state[1] < until, advance, state)
    return Drawing(tokens[:, 1:], passes, done, cache)


@partial(jax.jit, static_argnames=("model", "guided", "window", "weight_bits"))
def decode(
    model,
    params,
    condition: tuple,
    keys,
    settings: dict,
    valid=None,
    rows=None,
    until=None,
    *,
    guided: bool,
    window: int = 1,
    weight_bits: int = 32,
) -> Drawing:
    """`Autoregressive.draw`, compiled; the settings are traced, and so is `until` (see `sample_tokens`).

    Args:
      settings: those of `Autoregressive` but `window` and `weight_bits`.
      guided: False leaves out the rows of the null caption; for guidance scale 1.
      weight_bits: of layers while tokens are drawn; the memory is read, and projected, by weights as they are.
    """
    params = unstack(params)
    encoder = _bind(model, params)

    def read(*condition):
        return encoder(*encoder(*condition, method="encode"), method="init_cache")

    cache = read(*condition)
    if rows is not None:
        cache = jax.tree.map(partial(_take, rows=rows, count=len(condition[0])), cache)
    if guided:
        # What reads no caption is the same for all images.
        text_ids, text_mask, _ = condition
        null = read(*(jnp.zeros((1, *x.shape[1:]), x.dtype) for x in (text_ids, text_mask)), jnp.ones(1, bool))
        cache = jax.tree.map(partial(_pair, count=len(keys)), cache, null)
    bound = _bind(model, with_bits(params, weight_bits))
    return _sample(model, bound, cache, keys, settings, valid, guided, window=window, until=until)


@partial(jax.jit, static_argnames=("model", "guided", "window", "weight_bits"), donate_argnames="cache")
def go_on(
    model,
    params,
    cache,
    ids,
    done,
    keys,
    settings: dict,
    valid=None,
    until=None,
    *,
    guided: bool,
    window: int = 1,
    weight_bits: int = 32,
) -> Drawing:
    """`decode` from where it was left to `until`, another number of ids: one program for all stretches.

    Args:
      cache, ids, done: of the `Drawing`; the cache is donated.
      keys, settings, valid, guided, window, weight_bits: as they were.
    """
    bound = _bind(model, with_bits(unstack(params), weight_bits))
    stretch = {"window": window, "ids": ids, "done": done, "until": until}
    return _sample(model, bound, cache, keys, settings, valid, guided, **stretch)


def _bind(model, params) -> Callable:
    """The model's methods, with parameters of `unstack` as a loop reads them best."""
    if model.dtype != "float32":
        params = jax.tree.map_with_path(partial(_round, dtype=model.dtype), params)
    return partial(model.apply, {"params": params})


def _sample(model, bound, cache, keys, settings, valid, guided, **options) -> Drawing:
    settings = {name: value for name, value in settings.items() if guided or name != "guidance_scale"}
    sizes = {"length": model.num_tokens, "start_id": model.codebook_size}
    step = partial(bound, method="decode_step")
    return sample_tokens(step, cache, keys, valid=valid, **sizes, **settings, **options)


def _round(path, x: Array, dtype: str) -> Array:
    """A kernel as its layer would round it at every step: in bfloat16 half as much to read."""
    return x.astype(dtype) if path[-1] == jax.tree_util.DictKey("kernel") else x


def _take(x: Array, rows: Int[Array, " B"], count: int) -> Array:
    """A leaf of a cache of `count` rows, with the given ones instead; a row may have several entries: heads."""
    return x.reshape(count, -1, *x.shape[1:])[rows].reshape(-1, *x.shape[1:])


def _pair(x: Array, null: Array, count: int) -> Array:
    """A leaf of a cache of `count` rows, behind each the one row of `null`."""
    x = x.reshape(count, -1, *x.shape[1:])
    return jnp.stack([x, jnp.broadcast_to(null, x.shape)], 1).reshape(-1, *x.shape[2:])
