"""Nearest and residual codes, the codebook of moving averages, k-means, and restarts of dead codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.nn import codebooks
from t2i_jax.nn.codebooks import codebook_of, kmeans, nearest_code, statistics_of
from t2i_jax.nn.quantizers import CodebookQuantizer, make


def floats(values):
    return jnp.array(values, jnp.float32)


def normal(*shape, seed=0):
    return floats(np.random.default_rng(seed).normal(size=shape))


def brute_force(features, codebook):
    features, codebook = np.asarray(features, np.float64), np.asarray(codebook, np.float64)
    return ((features[:, None] - codebook) ** 2).sum(-1).argmin(-1)


def some_statistics(size, width, seed=0):
    cluster_size = floats(np.random.default_rng(seed).dirichlet(np.full(size, 5.0)))
    return statistics_of(normal(size, width, seed=seed), cluster_size)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def quantize(quantizer, statistics, features, train=False):
    """Codes, ids and the statistics afterwards."""
    out, changed = quantizer.apply({"codebook": statistics}, features, train=train, mutable=["codebook"])
    return out.codes, out.ids, changed["codebook"]


fit = jax.jit(kmeans, static_argnums=(1, 3))


def used_codes(features, codebook):
    return len(np.unique(nearest_code(features, codebook)))


def distortion(features, codebook):
    return float(np.mean(np.sum((features - codebook[nearest_code(features, codebook)]) ** 2, -1)))


def test_nearest_code_equals_brute_force():
    features, codebook = normal(300, 5), normal(40, 5, seed=1)
    np.testing.assert_array_equal(nearest_code(features, codebook), brute_force(features, codebook))


def test_nearest_code_breaks_ties_by_the_lowest_id():
    """On a grid of small integers float32 is exact, so that equal distances are equal."""
    rng = np.random.default_rng(0)
    features, codebook = (floats(rng.integers(-3, 4, shape)) for shape in ((200, 3), (60, 3)))
    distances = ((features[:, None] - codebook) ** 2).sum(-1)
    assert ((distances == distances.min(1, keepdims=True)).sum(1) > 1).sum() > 50
    np.testing.assert_array_equal(nearest_code(features, codebook), brute_force(features, codebook))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_residual_codes(depth):
    features, codebook = normal(2, 30, 4), 0.7 * normal(25, 4, seed=1)
    left, expected_ids, expected_left = features.reshape(-1, 4), [], []
    for _ in range(depth):
        expected_left.append(left)
        expected_ids.append(brute_force(left, codebook))
        left = left - codebook[expected_ids[-1]]
    ids, vectors = codebooks.residual_codes(features, codebook, depth)
    np.testing.assert_array_equal(ids, np.stack(expected_ids, -1).reshape(2, 30, depth))
    np.testing.assert_allclose(vectors, np.stack(expected_left, -2).reshape(2, 30, depth, 4), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_codes_of_the_forward_pass_are_sums_of_the_codebooks(depth):
    quantizer, statistics, features = (
        CodebookQuantizer(20, 4, depth),
        some_statistics(20, 4),
        normal(2, 7, 4, seed=3),
    )
    codes, ids, _ = quantize(quantizer, statistics, features)
    assert ids.shape == (2, 7 * depth)
    codebook = np.asarray(quantizer.apply({"codebook": statistics}, method="codebook"))
    np.testing.assert_allclose(
        codebook, statistics["embedding_sum"] / statistics["cluster_size"][:, None], rtol=1e-6
    )
    np.testing.assert_allclose(codebook[ids.reshape(2, 7, depth)].sum(2), codes, rtol=0, atol=1e-6)


def test_ema_update_by_hand():
    """Codes 0 and 4, each used half of the time. 1 goes to the first; 3, 3.5 and 5 go to the second."""
    statistics = statistics_of(floats([[0.0], [4.0]]), floats([0.5, 0.5]))
    features = floats([[[1.0], [3.0]], [[3.5], [5.0]]])
    codes, ids, statistics = quantize(CodebookQuantizer(2, 1, decay=0.9), statistics, features, train=True)
    assert ids.tolist() == [[0, 1], [1, 1]]
    assert codes.ravel().tolist() == [0, 4, 4, 4]  # of the codebook before the update
    np.testing.assert_allclose(
        statistics["cluster_size"], [0.9 * 0.5 + 0.1 / 4, 0.9 * 0.5 + 0.1 * 3 / 4], atol=1e-7
    )
    np.testing.assert_allclose(statistics["embedding_sum"], [[0.1 * 1 / 4], [0.9 * 2 + 0.1 * 11.5 / 4]], atol=1e-7)
    np.testing.assert_allclose(codebook_of(statistics), [[0.0526316], [3.9761905]], atol=1e-6)


def test_without_update_nothing_moves():
    statistics = some_statistics(9, 3)
    after = quantize(CodebookQuantizer(9, 3), statistics, normal(2, 5, 3))[2]
    jax.tree.map(np.testing.assert_array_equal, after, statistics)


def test_ema_updates_equal_those_of_vector_quantize_pytorch():
    torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
    reference = pytest.importorskip(
        "vector_quantize_pytorch.vector_quantize_pytorch",
        reason="vector-quantize-pytorch comes with the extra `parity`",
    )
    vectors, size, width, decay = 120, 16, 5, 0.8
    statistics = some_statistics(size, width)
    book = reference.Codebook(width, size, decay=decay, eps=0.0, threshold_ema_dead_code=0).train()
    for buffer, value in (
        (book.cluster_size, statistics["cluster_size"] * vectors),  # they count; we take shares
        (book.embed_avg, statistics["embedding_sum"] * vectors),
        (book.embed, codebook_of(statistics)),
    ):
        buffer.copy_(torch.tensor(np.array(value))[None])
    for step in range(8):
        features = normal(4, vectors // 4, width, seed=100 + step) + 0.2 * step
        _, their_ids, _ = book(torch.tensor(np.array(features)))
        _, ids, statistics = quantize(CodebookQuantizer(size, width, decay=decay), statistics, features, train=True)
        np.testing.assert_array_equal(ids, their_ids.numpy().reshape(ids.shape))
    np.testing.assert_allclose(statistics["cluster_size"] * vectors, book.cluster_size[0], rtol=1e-4)
    np.testing.assert_allclose(codebook_of(statistics), book.embed[0], atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_mean_of_the_updates_by_two_halves_is_the_update_by_the_whole(depth):
    quantizer, statistics = CodebookQuantizer(12, 3, depth, decay=0.7), some_statistics(12, 3)
    features = normal(8, 10, 3, seed=5) * jnp.linspace(0.2, 3, 8)[:, None, None]
    whole, first, second = (
        quantize(quantizer, statistics, part, train=True)[2] for part in (features, features[:4], features[4:])
    )
    assert np.abs(first["embedding_sum"] - second["embedding_sum"]).max() > 0.01
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), mean, whole)


def test_a_code_that_is_dead_for_20000_steps_stays_finite_and_can_come_back():
    quantizer = CodebookQuantizer(2, 1)
    statistics = statistics_of(floats([[0.0], [100.0]]), floats([0.5, 0.5]))

    def step(_, statistics):
        return quantize(quantizer, statistics, jnp.full((1, 4, 1), 0.5), train=True)[2]

    statistics = jax.jit(lambda start: jax.lax.fori_loop(0, 20_000, step, start))(statistics)
    assert 0 < statistics["cluster_size"][1] < 1e-6
    np.testing.assert_allclose(codebook_of(statistics), [[0.5], [100.0]], rtol=1e-4)
    statistics = quantize(quantizer, statistics, jnp.full((1, 4, 1), 90.0), train=True)[2]
    np.testing.assert_allclose(codebook_of(statistics)[1], 90, rtol=1e-3)


def test_kmeans_recovers_clusters():
    middles = 50 * normal(8, 4)
    features = jnp.repeat(middles, 40, 0)
    centres, share, ids = fit(features, 8, jax.random.key(0))
    order = brute_force(middles, np.asarray(centres))
    assert sorted(order) == list(range(8))
    np.testing.assert_allclose(centres[order], middles, rtol=1e-5)
    np.testing.assert_allclose(share, 1 / 8)
    np.testing.assert_array_equal(ids, brute_force(features, np.asarray(centres)))


def test_kmeans_share_is_what_each_centre_owns():
    features = jnp.repeat(floats([[0.0], [10.0]]), jnp.array([30, 10]), 0)
    centres, share, _ = fit(features, 2, jax.random.key(0))
    order = np.argsort(np.asarray(centres)[:, 0])
    np.testing.assert_allclose(centres[order], [[0], [10]], atol=1e-6)
    np.testing.assert_allclose(share[order], [0.75, 0.25])


def test_kmeans_leaves_no_centre_empty_where_half_of_the_features_are_equal():
    features = jnp.concatenate([jnp.zeros((2000, 4)), normal(2000, 4)])
    empty_at_start = 128 - used_codes(features, fit(features, 128, jax.random.key(0), 0)[0])
    assert empty_at_start > 40
    centres, share, _ = fit(features, 128, jax.random.key(0))
    assert used_codes(features, centres) == 128
    assert share.min() >= 0.1 / 128


def test_kmeans_serves_better_than_its_random_start():
    features = normal(3000, 6)
    start, end = (fit(features, 64, jax.random.key(1), i)[0] for i in (0, 10))
    assert distortion(features, end) < 0.85 * distortion(features, start)


def test_residual_kmeans_of_depth_two():
    """Half of the codes stand for the features, half for what those leave over."""
    features = normal(4000, 4)
    codebook, cluster_size = jax.jit(codebooks.residual_kmeans, static_argnums=(1, 2))(
        features, 64, 2, jax.random.key(0)
    )
    assert codebook.shape == (64, 4)
    np.testing.assert_allclose(cluster_size.sum(), 1, rtol=1e-2)
    np.testing.assert_allclose(cluster_size[:32].sum(), 0.5, rtol=1e-2)
    ids, left = jax.jit(codebooks.residual_codes, static_argnums=2)(features[None], codebook, 2)
    rest = left[0, :, 1] - codebook[ids[0, :, 1]]
    assert np.mean(np.sum(rest**2, -1)) < 0.4 * distortion(features, codebook[:32])
    assert len(np.unique(ids)) == 64
    # The second half is the k-means of what the first leaves over, and so much smaller than the features.
    assert np.linalg.norm(codebook[32:], axis=-1).mean() < 0.7 * np.linalg.norm(codebook[:32], axis=-1).mean()


def test_random_restart_touches_dead_codes_alone():
    """Codes 2 and 4 are dead: below 0.05 / 5."""
    codebook, dead = floats([[0.0], [1.0], [50.0], [2.0], [60.0]]), jnp.array([2, 4])
    cluster_size = floats([0.5, 0.24, 0.009, 0.241, 0.0001])
    features = floats([[0.25], [9.0], [1.25], [2.25], [2.5], [8.0]])
    codes, restarted, mask = jax.jit(codebooks.random_restart)(codebook, cluster_size, features, jax.random.key(0))
    alive = jnp.array([0, 1, 3])
    np.testing.assert_array_equal(codes[alive], codebook[alive])
    np.testing.assert_array_equal(restarted[alive], cluster_size[alive])
    np.testing.assert_allclose(restarted[dead], 1 / 5)
    assert np.flatnonzero(mask).tolist() == dead.tolist()
    first, second = np.asarray(codes)[dead]
    assert first != second
    assert {float(first[0]), float(second[0])} <= set(features.ravel().tolist())


@pytest.mark.parametrize("kind", ["ema", "gradient", "l2"])
def test_live_codes_keep_every_bit_of_their_statistics(kind):
    """Codes of length 1 stand for sums of any length: writing them back would change their inertia."""
    quantizer = make(kind, 6, 3)
    variables = quantizer.init(jax.random.key(0), normal(1, 2, 3))
    params, statistics = variables.get("params", {}), variables["codebook"]
    statistics["cluster_size"] = floats([0.3, 0.001, 0.2, 0.1, 0.002, 0.397])
    codes = quantizer.apply(variables, method="code_space_codebook")
    features = quantizer.apply(variables, normal(1, 40, 3, seed=5), method="to_code_space")[0]
    new = codebooks.random_restart(codes, statistics["cluster_size"], features, jax.random.key(1))
    replaced = codebooks.replace_codes(params, statistics, *new)
    before, after = ({**p, **s} for p, s in ((params, statistics), replaced))
    name = "codes" if kind == "gradient" else "embedding_sum"
    assert np.flatnonzero((before[name] != after[name]).any(1)).tolist() == [1, 4]
    assert np.flatnonzero(before["cluster_size"] != after["cluster_size"]).tolist() == [1, 4]
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)


def test_random_restart_of_more_codes_than_features():
    cluster_size, seeds = floats([1, 0, 0, 0, 0, 0]), floats([[3.0], [5.0]])
    codebook, *_ = jax.jit(codebooks.random_restart)(jnp.zeros((6, 1)), cluster_size, seeds, jax.random.key(0))
    assert codebook[0] == 0
    assert set(codebook[1:, 0].tolist()) == {3.0, 5.0}


def test_draws_are_in_proportion_to_the_errors_and_without_replacement():
    def draw(key):
        return codebooks.draw_by_error(key, floats([1, 0, 3, 0]), 2)

    draws = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)))
    assert np.mean(draws[:, 0] == 2) == pytest.approx(0.75, abs=0.03)
    assert set(draws.sum(1)) == {2}
