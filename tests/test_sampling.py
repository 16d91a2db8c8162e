"""What the sampler draws, of a table and of the model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute import PLAIN, UNFILTERED, K, brute_min_p, brute_top_k, brute_top_p, keys_of, rows
from fakes import fake_batch, fake_variables
from flax.core import FrozenDict
from scipy import stats

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.models.translator import Model
from t2i_jax.nn.stack import unstack
from t2i_jax.sampling.decoding import _round, decode, sample_ids, sample_tokens

N = 5


# --- draws


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, brute_top_k),
        ({"temperature": 0.5}, brute_top_k),
        ({"temperature": 2.0}, brute_top_k),
        ({"top_k": 4}, lambda row, _: brute_top_k(row, 4)),
        ({"top_p": 0.7}, lambda row, _: brute_top_p(row, 0.7)),
        ({"min_p": 0.1}, lambda row, _: brute_min_p(row, 0.1)),
        ({"temperature": 3.0, "min_p": 0.4}, lambda row, _: brute_min_p(row, 0.4)),
        ({"temperature": 2.0, "top_k": 6, "top_p": 0.8}, None),
        ({"temperature": 2.0, "top_k": 6, "top_p": 0.8, "min_p": 0.45}, None),
    ],
)
def test_frequencies_match_the_softmax(changes, kept):
    settings = UNFILTERED | changes
    row = rows()[0]
    scaled = row / settings["temperature"]
    if kept:
        kept = sorted(kept(scaled, 0))
    else:
        best = sorted(brute_top_k(scaled, 6))
        kept = {best[i] for i in brute_top_p(scaled[best], 0.8)}
        kept = sorted(kept & brute_min_p(scaled, settings["min_p"]))
        assert len(kept) == (3 if settings["min_p"] else 4)
    count = 20_000
    drawn = jax.jit(sample_ids)(keys_of(count), jnp.tile(row, (count, 1)), **settings)
    counts = np.bincount(drawn, minlength=K)
    assert counts.sum() == counts[kept].sum()
    weights = np.exp(np.float64(scaled[kept]))
    expected = count * weights / weights.sum()
    assert stats.chisquare(counts[kept], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    "changes",
    [{"temperature": 0.0}, {"temperature": 1e-30}, {"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}],
)
def test_limits_are_greedy(changes):
    logits = jnp.asarray(rows())
    if changes in ({"temperature": 1e-30}, {"min_p": 1.0}):
        logits = logits[:30]  # these draw among equals
    drawn = jax.jit(sample_ids)(keys_of(len(logits)), logits, **(UNFILTERED | changes))
    np.testing.assert_array_equal(drawn, logits.argmax(-1))


B = 40


def step(ids, position, cache):
    """Logits of one position that depend on it, the last id, all ids before it, and the row's own bias."""
    table = jax.random.normal(jax.random.key(7), (N, K + 1, K)) * 2
    total, bias = cache
    logits = table[position, ids[:, 0]] + jnp.sin(total)[:, None] * bias + bias
    return logits[:, None], (total + ids[:, 0], bias)


def start(guided):
    """A cache for B rows, or for those with another row after each."""
    total, bias = jnp.zeros(2 * B), jax.random.normal(jax.random.key(3), (2 * B, K))
    return (total, bias) if guided else (total[::2], bias[::2])


@jax.jit
def sample_table(settings, scale, valid=None):
    cache = start(scale is not None)
    options = {"length": N, "start_id": K, "guidance_scale": scale, "valid": valid}
    return sample_tokens(step, cache, keys_of(B), **options, **settings)[0]


def test_every_id_is_below_the_codebook_size():
    ids = sample_table(PLAIN | {"temperature": 5.0}, None)
    assert ids.shape == (B, N)
    assert ids.dtype == jnp.int32
    assert set(np.unique(ids)) == set(range(K))


def test_guidance_one_equals_none():
    plain = sample_table(PLAIN, None)
    np.testing.assert_array_equal(sample_table(PLAIN, 1.0), plain)
    assert (sample_table(PLAIN, 3.0) != plain).any(1).mean() > 0.3


def test_guidance_feeds_both_rows_the_same_ids_and_comes_before_temperature():
    cache, ids, expected = start(guided=True), jnp.full(B, K), []
    for position in range(N):
        logits, cache = step(jnp.repeat(ids, 2)[:, None], position, cache)
        logits = logits[:, 0]
        ids = (logits[1::2] + 4.0 * (logits[::2] - logits[1::2])).argmax(-1)
        expected.append(ids)
    for changes in ({"temperature": 0.0}, {"top_k": 1, "temperature": 3.0}):
        np.testing.assert_array_equal(sample_table(PLAIN | changes, 4.0), jnp.stack(expected, 1))


SHARP = {"temperature": 0.0}, {"temperature": 0.3, "top_k": 2}, {"top_p": 0.2}, {"min_p": 0.9}


@pytest.mark.parametrize("changes", SHARP)
@pytest.mark.parametrize("unguided_tokens", [0, 2, N, N + 9])
def test_unguided_tokens_lead_and_what_follows_reads_them(unguided_tokens, changes):
    settings, cache, ids, expected = PLAIN | changes, start(guided=True), jnp.full(B, K), []
    for position in range(N):
        logits, cache = step(jnp.repeat(ids, 2)[:, None], position, cache)
        logits = logits[:, 0]
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_of(B), position)
        if position < unguided_tokens:
            ids = sample_ids(keys, logits[::2], 1.0, 0, 1.0, settings["min_p"])
        else:
            guided = logits[1::2] + 4.0 * (logits[::2] - logits[1::2])
            ids = sample_ids(keys, guided, *(settings[name] for name in UNFILTERED))
        expected.append(ids)
    drawn = sample_table(settings | {"unguided_tokens": unguided_tokens}, 4.0)
    np.testing.assert_array_equal(drawn, jnp.stack(expected, 1))
    if unguided_tokens >= N and "min_p" not in changes:
        np.testing.assert_array_equal(drawn, sample_table(PLAIN, None))


def test_other_settings_compile_nothing():
    sample_table.clear_cache()
    results = set()
    for changes in ({}, {"temperature": 0.3}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.4}):
        for more in ({}, {"unguided_tokens": 3}):
            results.add(np.asarray(sample_table(PLAIN | changes | more, 4.0)).tobytes())
    results.add(np.asarray(sample_table(PLAIN, 1.0)).tobytes())
    assert len(results) == 13
    assert sample_table._cache_size() == 1


def test_positions_and_keys_draw_apart():
    def thousand(ids, position, cache):
        return jnp.zeros((len(ids), 1, 1000)), cache

    ids = sample_tokens(thousand, (), keys_of(3), length=4, start_id=0).ids
    assert len(np.unique(ids)) > 9


# --- valid ids


GRIDS = np.arange(K) // 4 == np.array([0, 0, 1, 2, 2])[:, None]  # [N, K]: three codebooks of four ids


def uniform(ids, position, cache):
    return jnp.zeros((len(ids), 1, K)), cache


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.99}, {"min_p": 0.5}, {"unguided_tokens": 3}]
)
def test_ids_of_a_uniform_model_stay_in_their_grids_and_are_uniform_there(changes):
    count = 4000
    cut = jax.jit(lambda keys: sample_tokens(
        uniform, (), keys, length=N, start_id=K, valid=jnp.array(GRIDS), **(PLAIN | changes)
    )[0])  # fmt: skip
    ids = np.asarray(cut(keys_of(count)))
    for position, valid in enumerate(GRIDS):
        counts = np.bincount(ids[:, position], minlength=K)
        assert counts[~valid].sum() == 0
        assert stats.chisquare(counts[valid]).pvalue > 1e-3


def test_greedy_and_guided_ids_stay_in_their_grids():
    """The likeliest id is made an invalid one wherever there is guidance or not."""
    for scale in (None, 0.0, 1.0, 4.0):
        for changes in ({"temperature": 0.0}, {"top_k": 1}, {"min_p": 1.0}, {"temperature": 5.0}):
            ids = sample_table(PLAIN | changes, scale, GRIDS)
            assert GRIDS[np.arange(N), ids].all()
    free = sample_table(PLAIN | {"temperature": 0.0}, 4.0)
    assert not GRIDS[np.arange(N), free].all()
    everything = sample_table(PLAIN, 4.0, np.ones((N, K), bool))
    np.testing.assert_array_equal(everything, sample_table(PLAIN, 4.0))


# --- with the model

CAPTIONS, S = 8, 6


@functools.cache
def translator():
    sizes = {"width": 32, "heads": 4, "mlp_width": 48, "layers": 1}
    model = Model(K, N, 31, S, FrozenDict(sizes, max_positions=S), FrozenDict(sizes, positions=N))
    rng = np.random.default_rng(0)
    text_ids = jnp.array(rng.integers(0, 31, (CAPTIONS, S)))
    mask = jnp.array(np.arange(S) < rng.integers(1, S + 1, (CAPTIONS, 1)))
    ids = jnp.zeros((CAPTIONS, N), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), text_ids, mask, ids)

    def weights(path, leaf):
        return jnp.array(0.3 * rng.normal(size=leaf.shape) + (path[-1].key == "scale"), leaf.dtype)

    return model, jax.tree_util.tree_map_with_path(weights, shapes), text_ids, mask


@functools.partial(jax.jit, static_argnums=0)
def sample(model, params, text_ids, mask, keys, scale, settings):
    condition, settings = (text_ids, mask, jnp.zeros(len(mask), bool)), settings | {"guidance_scale": scale}
    return decode(model, params["params"], condition, keys, settings, guided=True)[0]


def sample_rows(rows, scale, **settings):
    """Pictures of the captions numbered `rows`, each with the key of its number."""
    model, params, text_ids, mask = translator()
    return sample(model, params, text_ids[rows], mask[rows], keys_of(CAPTIONS)[rows], scale, settings)


def test_an_image_does_not_depend_on_its_batch():
    everything = sample_rows(jnp.arange(8), 2.0, **PLAIN)
    assert len(np.unique(everything, axis=0)) == 8
    for order in ([3], [6], [5, 0, 7], [2, 2, 1], [7, 6, 5, 4, 3, 2, 1, 0]):
        np.testing.assert_array_equal(sample_rows(jnp.array(order), 2.0, **PLAIN), everything[jnp.array(order)])


def test_greedy_equals_the_uncached_rollout():
    model, params, text_ids, mask = translator()
    forward = jax.jit(model.apply)
    ids = jnp.zeros((CAPTIONS, N), jnp.int32)
    for position in range(N):
        logits = forward(params, text_ids, mask, ids)
        ids = ids.at[:, position].set(logits[:, position].argmax(-1))
    assert len(np.unique(ids, axis=0)) > 3
    np.testing.assert_array_equal(sample_rows(jnp.arange(8), 1.0, **(PLAIN | {"temperature": 0.0})), ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["translator:smoke", "translator:transformer", "dalle:smoke", "prior:smoke"])
def test_weights_that_are_rounded_before_the_loop_give_the_same_logits(name):
    """As every layer rounds them itself in bfloat16; not compiled, for XLA leaves out roundings on CPU."""
    task = tasks.make(load_config(name, ["--config.model.dtype=bfloat16"]))
    batch = fake_batch(task, 2)
    variables = fake_variables(jax.eval_shape(task.init, jax.random.key(0), batch))
    params = jax.tree.map(jnp.asarray, unstack(variables["params"]))
    rounded = jax.tree.map_with_path(functools.partial(_round, dtype="bfloat16"), params)
    inputs = batch["text_ids"], batch["text_mask"], batch["ids"], batch["null"]
    with jax.disable_jit():
        exact, early = (task.model.apply({"params": own}, *inputs) for own in (params, rounded))
    np.testing.assert_array_equal(early, exact)
