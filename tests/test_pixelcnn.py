"""The PixelCNN: who sees whom, what it calls likely, what it draws, and that it learns."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from rollouts import cached_logits

from t2i_jax.evals import tokens as baselines
from t2i_jax.losses import cross_entropy
from t2i_jax.models.pixelcnn import Model
from t2i_jax.sampling.autoregressive import Autoregressive
from t2i_jax.sampling.decoding import decode
from t2i_jax.tasks import tokens

V, S = 11, 5
GRIDS = {  # with just as many layers as reach across
    (6, 4): (3, 5),
    (4, 6): (3, 5),
    (5, 5): (5, 2),
    (2, 7): (7, 2),
    (7, 3): (5, 3),
    (1, 6): (3, 5),
    (6, 1): (3, 5),
}


def build(grid=(3, 4), size=7, kernel=3, layers=3, width=8, **changes):
    config = ConfigDict(
        {
            "codebook_size": size,
            "num_tokens": grid[0] * grid[1],
            "grid": list(grid),
            "text_vocab_size": V,
            "text_len": S,
            "width": width,
            "heads": 2,
            "layers": layers,
            "kernel": kernel,
            "encoder": {"width": 12, "heads": 3, "mlp_width": 20, "layers": 1, "max_positions": S, "dropout": 0.0},
        }
    )
    config.update(changes)
    return Model(**FrozenConfigDict(config))


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(S) < rng.integers(1, S + 1, (count, 1))
    return jnp.array(rng.integers(0, V, (count, S))), jnp.array(mask)


def random_ids(model, count, seed=0):
    shape = (count, model.num_tokens)
    return jnp.array(np.random.default_rng(seed).integers(0, model.codebook_size, shape), jnp.int32)


def weights(model, seed=0):
    """Large enough that every path matters, small enough that no gate is shut."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *texts(2), random_ids(model, 2))["params"]

    def fill(path, leaf):
        name, parent = path[-1].key, path[-2].key if len(path) > 1 else ""
        inputs = leaf.shape[-2 if leaf.ndim in (2, 3) else 0]
        scale = inputs**-0.5 if name == "kernel" else 0.3 if name == "bias" else 1.0
        return jnp.array((6.0 if parent == "head" else 1.0) * scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.cache
def small(seed=0):
    """A model, its weights, and its compiled forward pass."""
    model = build()
    params = weights(model, seed)
    return model, params, functools.partial(jax.jit(model.apply), {"params": params})


def influence(model, params):
    """[N, N]: the largest derivative of a feature of position i by a feature of the token at position j."""
    memory = texts(1)
    condition = model.apply(
        {"params": params}, *memory, method=lambda model, *text: model.condition(*model.encode(*text))
    )
    grid = jnp.array(np.random.default_rng(1).normal(size=(1, *model.grid, model.width)), jnp.float32)

    def states(x):
        return model.apply({"params": params}, x, condition, method="stacks")[0]

    jacobian = jax.jit(jax.jacrev(states))(grid)[:, :, 0]
    count = model.num_tokens
    return np.abs(jacobian.reshape(count, model.width, count, model.width)).max((1, 3))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_position_sees_all_before_it_and_nothing_else(grid):
    kernel, layers = GRIDS[grid]
    model = build(grid, kernel=kernel, layers=layers, width=6)
    seen = influence(model, weights(model))
    before = np.tri(model.num_tokens, k=-1, dtype=bool)
    assert (seen[~before] == 0).all()  # neither itself (mask A) nor what comes later
    assert (seen[before] > 0).all(), np.argwhere(before & (seen == 0))  # no blind spot


def test_an_id_changes_the_logits_after_it_alone():
    model, _, forward = small()
    ids = random_ids(model, 1)
    before = forward(*texts(1), ids)
    assert before.shape == (1, 12, 7)
    assert before.dtype == jnp.float32
    for position in range(model.num_tokens):
        changed = forward(*texts(1), ids.at[0, position].set((ids[0, position] + 3) % 7))
        differs = np.abs(changed - before).max((0, 2)) > 0
        np.testing.assert_array_equal(differs, np.arange(model.num_tokens) > position)


@pytest.mark.parametrize("null", [False, True])
def test_the_likelihoods_of_all_grids_sum_to_one(null):
    model = build((2, 2), size=2, layers=1)
    ids = jnp.array(list(itertools.product(range(2), repeat=4)), jnp.int32)
    text_ids, mask = (jnp.tile(part, (len(ids), 1)) for part in texts(1))
    logits = model.apply({"params": weights(model, seed=4)}, text_ids, mask, ids, jnp.full(len(ids), null))
    likelihood = np.exp(-np.asarray(cross_entropy(logits, ids), np.float64).sum(-1))
    assert likelihood.max() < 0.9
    assert likelihood.sum() == pytest.approx(1, abs=1e-5)


def test_captions_are_read_but_not_in_null_rows():
    model, _, forward = small(seed=1)
    ids = jnp.tile(random_ids(model, 1), (2, 1))
    text_ids, mask = texts(2)
    read, dropped = forward(text_ids, mask, ids), forward(text_ids, mask, ids, jnp.array([True, True]))
    assert np.abs(read[0] - read[1]).max((1,)).min() > 1e-3  # everywhere
    np.testing.assert_array_equal(dropped[0], dropped[1])
    mixed = forward(text_ids, mask, ids, jnp.array([False, True]))
    np.testing.assert_allclose(mixed, jnp.stack([read[0], dropped[1]]), atol=1e-5)
    other = weights(model, seed=1)
    other["null_caption"] = -other["null_caption"]
    assert np.abs(model.apply({"params": other}, text_ids, mask, ids, ~mask.any(1)) - read).max() < 1e-5
    assert np.abs(model.apply({"params": other}, text_ids, mask, ids, mask.any(1)) - dropped).max() > 1e-3


def test_padding_of_a_caption_is_not_read():
    model, _, forward = small()
    text_ids, mask = texts(4)
    other = jnp.where(mask, text_ids, (text_ids + 1) % V)
    ids = random_ids(model, 4)
    np.testing.assert_array_equal(forward(text_ids, mask, ids), forward(other, mask, ids))


def test_without_conditions_no_caption_is_read_and_no_encoder_built():
    model = build(conditional=False)
    params = weights(model)
    assert "bert" not in params
    ids = random_ids(model, 3)
    forward = functools.partial(model.apply, {"params": params})
    read = forward(*texts(3), ids, jnp.zeros(3, bool))
    np.testing.assert_array_equal(read, forward(*texts(3, seed=5), ids))


def test_every_position_knows_its_place_whatever_is_read():
    """Where a grid is no picture, what stands at a position does not follow from what is around it."""
    model, params, _ = small()

    def condition(model, *text):
        return model.condition(*model.encode(*text))

    places = model.apply({"params": params}, *texts(1), jnp.ones(1, bool), method=condition)
    places = places.reshape(model.num_tokens, model.width)
    distances = np.abs(places[:, None] - places[None]).max(-1)
    assert distances[~np.eye(len(places), dtype=bool)].min() > 0.1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_tokens": 13}, "grid 3 x 4 does not hold num_tokens 13"),
        ({"kernel": 4}, "kernel 4 has no middle"),
        ({"layers": 2}, "2 layers of kernel 3 reach 2 tokens far, not across a grid of 3 x 4"),
        ({"encoder": {"max_positions": S - 1}}, "text has 5 tokens; the encoder reads 4"),
    ],
)
def test_what_does_not_fit_says_so(changes, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(build(**changes).init, jax.random.key(0), *texts(2), jnp.zeros((2, 12), jnp.int32))


def test_steps_give_the_logits_of_the_whole_grid():
    model, params, forward = small()
    ids = random_ids(model, 3)
    found, _ = cached_logits(model, params, *texts(3), jnp.zeros(3, bool), ids)
    np.testing.assert_allclose(found, forward(*texts(3), ids), rtol=1e-5, atol=1e-5)


def draw(count=5, null=False, guided=None, seed=0, **settings):
    model, params, _ = small(seed)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(count))
    sampler, condition = Autoregressive(**settings), (*texts(count), jnp.full(count, null))
    guided = sampler.guided if guided is None else guided
    settings = {name: value for name, value in vars(sampler).items() if name not in ("window", "weight_bits")}
    return np.asarray(decode(model, params, condition, keys, settings, guided=guided, window=sampler.window)[0])


def test_greedy_draws_are_the_chain_of_likeliest_ids():
    """Where no logits see the future, no other ids than that chain are the likeliest after themselves."""
    _, _, forward = small(seed=9)  # whose chains are several, of several ids
    ids = draw(temperature=0, seed=9)
    np.testing.assert_array_equal(forward(*texts(5), jnp.array(ids)).argmax(-1), ids)
    assert len(np.unique(ids)) >= 3
    unread = draw(null=True, temperature=0, seed=9)
    np.testing.assert_array_equal(forward(*texts(5), jnp.array(unread), jnp.ones(5, bool)).argmax(-1), unread)
    assert (unread == unread[0]).all()
    assert not (ids == ids[0]).all()


def test_ids_are_codes_and_depend_on_the_key():
    ids = draw(temperature=3.0)
    assert ids.dtype == np.int32
    assert ids.min() == 0
    assert ids.max() == 6
    assert len({row.tobytes() for row in ids}) == 5


def test_guidance_1_is_none_and_0_reads_no_caption():
    np.testing.assert_array_equal(draw(guided=True), draw())
    assert not np.array_equal(draw(guidance_scale=4.0), draw())
    np.testing.assert_array_equal(draw(guidance_scale=0.0), draw(null=True))


def test_draws_have_the_likelihoods_of_the_model():
    model = build((2, 2), size=2, layers=1)
    params = weights(model)
    ids = jnp.array(list(itertools.product(range(2), repeat=4)), jnp.int32)
    logits = model.apply({"params": params}, *(jnp.tile(part, (16, 1)) for part in texts(1)), ids)
    likelihood = np.exp(-np.asarray(cross_entropy(logits, ids)).sum(-1))
    count = 4000
    condition = *(jnp.tile(part, (count, 1)) for part in texts(1)), jnp.zeros(count, bool)
    drawn = Autoregressive().draw(model, params, condition, jax.random.split(jax.random.key(1), count))
    shares = np.bincount(np.asarray(drawn) @ [8, 4, 2, 1], minlength=16) / count
    assert np.abs(shares - likelihood).max() < 4 * np.sqrt(0.25 / count)


def codes_with_a_rule(count, seed, size=4, side=4):
    """Nine of ten ids are the sum of the one above and the one on the left; no bigram can know that."""
    rng = np.random.default_rng(seed)
    grid = np.zeros((count, side + 1, side + 1), np.int32)
    grid[:, 0, 1:] = grid[:, 1:, 0] = rng.integers(0, size, (count, side))
    for i, j in itertools.product(range(1, side + 1), repeat=2):
        noise = rng.integers(0, size, count)
        rule = (grid[:, i - 1, j] + grid[:, i, j - 1]) % size
        grid[:, i, j] = np.where(rng.random(count) < 0.9, rule, noise)
    return grid[:, 1:, 1:].reshape(count, -1)


@pytest.mark.long
def test_it_learns_what_no_bigram_can():
    train, validation = codes_with_a_rule(4000, 0), codes_with_a_rule(500, 1)
    model = build((4, 4), size=4, layers=3, width=32, conditional=False)
    batch = {
        "text_ids": jnp.zeros((500, S), int),
        "text_mask": jnp.zeros((500, S), bool),
        "null": jnp.ones(500, bool),
    }
    params = model.init(jax.random.key(0), *texts(2), random_ids(model, 2))["params"]
    optimizer = optax.adam(5e-3)

    @jax.jit
    def step(params, state, ids):
        def loss_fn(params):
            rows = {name: value[: len(ids)] for name, value in batch.items()} | {"ids": ids}
            return tokens.loss_fn(model, params, {}, rows, step=0, rngs={}, train=True)[0]

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state, loss

    state, rng = optimizer.init(params), np.random.default_rng(2)
    for _ in range(300):
        params, state, _ = step(params, state, jnp.array(train[rng.integers(0, len(train), 64)]))
    texts_of = batch["text_ids"], batch["text_mask"]
    logits = model.apply({"params": params}, *texts_of, jnp.array(validation))
    nats = float(cross_entropy(logits, jnp.array(validation)).mean())
    others = baselines.baselines([train], [validation], 4)
    assert nats < 0.8 * min(others.values()), (nats, others)
