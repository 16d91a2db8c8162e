"""Mean and covariance in a stream, and the Frechet distance of two of them."""

import io
import itertools
import pickle
import zipfile

import numpy as np
import pytest
from scipy import linalg

from t2i_jax.errors import UserError
from t2i_jax.evals.metrics import moments
from t2i_jax.evals.metrics.moments import Frechet, Moments


def direct(x, y):
    """Frechet distance in float64 by scipy's root of a product that is not symmetric, as pytorch-fid has it."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mine, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    apart = x.mean(0) - y.mean(0)
    return apart @ apart + np.trace(mine) + np.trace(other) - 2 * np.trace(linalg.sqrtm(mine @ other)).real


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(40, 40)) / 6
    return [(rng.normal(size=(n, 40)) @ mix + shift).astype(np.float32) for n, shift in ((900, 0.4), (500, 0.6))]


def test_a_stream_has_the_direct_distance(sets):
    streams = [sum((Moments.of(part) for part in np.array_split(x, 17)), Moments.none(40)) for x in sets]
    assert Frechet(streams[1])(streams[0]) == pytest.approx(direct(*sets), rel=1e-8)


def test_order_and_split_change_nothing(sets):
    whole, rng = Moments.of(sets[0]), np.random.default_rng(1)
    for cuts in ([1, 2, 899], [450], rng.integers(0, 900, 30)):
        parts = [Moments.of(part) for part in np.split(rng.permutation(sets[0]), np.sort(cuts))]
        for order in itertools.islice(itertools.permutations(parts[:4]), 3):
            merged = sum((*order, *parts[4:]), Moments.none(40))
            assert merged.n == 900
            np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    without = whole - Moments.of(sets[0][:100])
    np.testing.assert_allclose(without.covariance, Moments.of(sets[0][100:]).covariance, rtol=1e-9, atol=1e-12)


def test_equal_covariances_leave_the_means_alone(sets):
    """Integers, so that moving by a whole number leaves the covariance bit for bit."""
    x = np.round(sets[0] * 100)
    own = Moments.of(x)
    shift = np.arange(40.0)
    moved = Moments(own.n, own.total + own.n * shift, np.zeros((40, 40)))
    object.__setattr__(moved, "products", own.covariance * (own.n - 1) + np.outer(moved.total, moved.total) / own.n)
    assert Frechet(own)(own) == 0
    assert Frechet(own)(moved) == pytest.approx(float(shift @ shift), rel=1e-9)


def test_in_one_dimension_by_hand():
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [9.0]])  # means 1, 5; variances 2, 32
    assert Frechet(Moments.of(x))(Moments.of(y)) == pytest.approx(16 + 2 + 32 - 2 * 8)


def test_at_infinity_there_is_no_bias():
    """Pictures of the reference's own kind: 0, where so many of them are apart by their number alone."""
    rng = np.random.default_rng(0)
    distance = Frechet(Moments.of(rng.normal(size=(40_000, 30))))
    features = rng.normal(size=(600, 30))
    measured, line = distance(Moments.of(features)), moments.at_infinity(features, distance)
    assert measured > 0.3
    assert abs(line) < measured / 4


def test_statistics_are_kept(sets, tmp_path):
    own = Moments.of(sets[0])
    own.save(tmp_path / "own.npz", "vgg16 123")
    found, about = moments.load(tmp_path / "own.npz")
    assert (found.n, about) == (900, "vgg16 123")
    np.testing.assert_array_equal(found.products, own.products)
    other = Moments.of(sets[1])
    np.savez(tmp_path / "fid.npz", mu=other.mean, sigma=other.covariance)
    theirs, about = moments.load(tmp_path / "fid.npz")
    assert (theirs.n, about) == (0, "")
    assert Frechet(theirs)(found) == pytest.approx(direct(*sets), rel=1e-8)
    with np.load(tmp_path / "own.npz") as archive:  # for pytorch-fid
        np.testing.assert_allclose(archive["sigma"], np.cov(sets[0].astype(float), rowvar=False), atol=1e-10)


class Runs:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"", "that can be read"),
        (b"PK\x03\x04 and no more", "that can be read"),
        (pickle.dumps(Runs()), "that can be read"),
        ({"mu": np.array([Runs()]), "sigma": np.ones((1, 1))}, "that can be read"),
        ({"mu": np.ones(3)}, "neither mu and sigma nor sums"),
        ({"mu": np.ones(3), "sigma": np.ones((2, 2))}, "statistics of shapes"),
        ({"mu": np.array([np.nan]), "sigma": np.ones((1, 1))}, "numbers that are none"),
        ({"mu": np.array(["a"]), "sigma": np.ones((1, 1))}, "numbers that are none"),
        ({"n": np.array(0), "total": np.ones(1), "products": np.ones((1, 1))}, "of 0 pictures"),
    ],
)
def test_other_files_are_one_line_and_not_run(content, said, tmp_path, capsys):
    path = tmp_path / "file.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.savez(path, **content)
    with pytest.raises(UserError, match=said) as error:
        moments.load(path)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_too_few_pictures_are_named():
    with pytest.raises(
        UserError, match=r"pictures: 256 pictures make a singular covariance of 256 .* at least 257"
    ):
        moments.check_rank(256, 256, "pictures")
    moments.check_rank(257, 256, "pictures")


def npy(array=None, *, header="") -> bytes:
    content = io.BytesIO()
    if array is not None:
        np.save(content, array)
        return content.getvalue()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()


SHAPE = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s,)}\n"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"mu": b"x", "sigma": b"y"}, "a member is no array"),
        ({"mu.npy": npy(header="(" * 99), "sigma.npy": npy(np.eye(2))}, "EOF in multi-line"),
        ({"mu.npy": npy(header=SHAPE % 10**20), "sigma.npy": npy(np.eye(2))}, "too large to convert"),
        ({"mu.npy": npy(np.zeros(0)), "sigma.npy": npy(np.zeros((0, 0)))}, r"shapes \(0,\)"),
        (npy(np.zeros(2)), "no statistics that can be read"),
    ],
)
def test_archives_that_lie_are_one_line(tmp_path, members, said):
    path = tmp_path / "file.npz"
    if isinstance(members, bytes):
        path.write_bytes(members)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(UserError, match=said):
        moments.load(path)


@pytest.mark.parametrize(("place", "byte"), [(8, 1), (10, 99)], ids=["encrypted", "method"])
def test_members_that_zipfile_does_not_read_are_one_line(tmp_path, place, byte):
    path = tmp_path / "file.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + place] = raw[place - 2] = byte
    path.write_bytes(raw)
    with pytest.raises(UserError, match="no statistics that can be read"):
        moments.load(path)
