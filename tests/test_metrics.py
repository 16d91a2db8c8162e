"""Kernel distance, Inception Score, precision and recall: as sums written out, and on the faults they are for."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from t2i_jax.evals.metrics import inception_score, kernel, manifold


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(0.4, 0.5, (230, 12)).astype(np.float32), rng.normal(0.5, 0.5, (150, 12)).astype(np.float32)


def test_kernel_distance_is_that_of_the_paper(sets):
    x, y = (own.astype(float) for own in sets)
    own, other, both = (polynomial_kernel(*pair, 3, 1 / 12, 1) for pair in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    value = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    assert kernel.discrepancy(*sets) == pytest.approx(value - 2 * both.mean(), abs=1e-6)


def test_kernel_distance_of_subsets_is_unbiased(sets):
    """The mean over small subsets is near the value of all; and near 0 of two halves of one set."""
    found = kernel.distances(*sets, subsets=400, size=40, seed=1)
    error = found.std() / 20
    assert abs(found.mean() - kernel.discrepancy(*sets)) < 4 * error
    rng = np.random.default_rng(0)
    same = rng.normal(size=(2, 2000, 12))
    assert abs(kernel.distances(*same, subsets=50, size=100).mean()) < 0.02 < kernel.discrepancy(*sets)
    np.testing.assert_array_equal(
        kernel.distances(*sets, subsets=3, size=40, seed=1), kernel.distances(*sets, subsets=3, size=40, seed=1)
    )


def test_inception_score_by_hand():
    """One-hot over 4 classes evenly: 4. The same for all: 1. Logits may be large."""
    hot = np.eye(4).repeat(25, 0) * 2000.0
    assert inception_score.scores(np.tile(hot, (2, 1)), 2) == pytest.approx([4, 4])
    assert inception_score.scores(np.ones((20, 5)) * 1e4, 1) == pytest.approx([1])
    logits = np.random.default_rng(0).normal(size=(60, 7))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [np.exp(np.mean(np.sum(q * np.log(q / q.mean(0)), 1))) for q in np.split(p, 3)]
    assert inception_score.scores(logits, 3) == pytest.approx(parts, abs=1e-9)


def test_manifolds_are_those_of_the_papers(sets, monkeypatch):
    monkeypatch.setattr(manifold, "ROWS", 37)
    generated, real = (x.astype(float) for x in sets)

    def radii(x, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    apart = np.linalg.norm(generated[:, None] - real, axis=-1)
    expected = {
        "precision": (apart <= radii(real, 3)).any(1),
        "recall": (apart <= radii(generated, 3)[:, None]).any(0),
        "density": (apart <= radii(real, 5)).sum(1) / 5,
        "coverage": (apart <= radii(real, 5)).any(0),
    }
    found = manifold.measure(*sets)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
        assert 0 < values.mean() < 1.2


def test_each_fails_on_the_fault_it_is_for():
    """Two clusters: who draws one alone has precision, and no recall; who draws between them has neither."""
    rng = np.random.default_rng(0)

    def clusters(*centres):
        return np.concatenate([rng.normal(centre, 0.3, (200, 6)) for centre in centres])

    real = clusters(-2, 2)
    shares = {
        name: {key: own.mean() for key, own in manifold.measure(clusters(*centres), real).items()}
        for name, centres in (("same", (-2, 2)), ("collapsed", (2, 2)), ("between", (0, 0)))
    }
    assert min(shares["same"].values()) > 0.85
    assert shares["collapsed"]["precision"] > 0.9
    assert shares["collapsed"]["recall"] < 0.55
    assert shares["collapsed"]["coverage"] < 0.55
    assert max(shares["between"].values()) < 0.05


def test_equal_pictures_are_no_neighbours_of_themselves():
    x = np.zeros((9, 3))
    assert [own.mean() for own in manifold.measure(x, x).values()] == pytest.approx([1, 1, 9 / 5, 1])
