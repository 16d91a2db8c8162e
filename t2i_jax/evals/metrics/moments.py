"""Mean and covariance of features in constant memory, and the Frechet distance of two sets (Heusel et al. 2017).

Sums are kept in float64: n, sum of x, sum of x x^T. They are exact over any number of pictures, and those of
several shards, devices or processes are added. `.npz` files of pytorch-fid (`mu`, `sigma`) are read as well.
"""

import dataclasses
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from t2i_jax import files
from t2i_jax.errors import UserError, one_line

MAX_WIDTH = 8192  # of features in a file
POINTS = 15  # of the line that leads to infinitely many pictures


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over features [n, D].

    Attributes:
      n: how many features. 0 of a file of pytorch-fid, which does not say; `total` and `products` are then its mean
        and covariance.
      total: sum of x.
      products: sum of x x^T.
    """

    n: int
    total: Float64[np.ndarray, " D"]
    products: Float64[np.ndarray, "D D"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n D"]) -> "Moments":
        x = features.astype(np.float64)
        return cls(len(x), x.sum(0), x.T @ x)

    @classmethod
    def none(cls, width: int) -> "Moments":
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.n - other.n, self.total - other.total, self.products - other.products)

    @property
    def mean(self) -> Float64[np.ndarray, " D"]:
        return self.total / self.n if self.n else self.total

    @property
    def covariance(self) -> Float64[np.ndarray, "D D"]:
        """Divided by n - 1; 0 of one feature."""
        if not self.n:
            return self.products
        return (self.products - np.outer(self.total, self.total) / self.n) / max(self.n - 1, 1)

    def save(self, path: str | Path, about: str = "") -> None:
        """Write an `.npz`: n, total, products, and mu and sigma as pytorch-fid has them.

        Args:
          path: of the file; it appears atomically.
          about: what the features are, such as the name and digest of the network.
        """
        content = io.BytesIO()
        own = {"n": self.n, "total": self.total, "products": self.products, "about": about}
        np.savez(content, mu=self.mean, sigma=self.covariance, **own)
        files.write_atomically(Path(path), content.getvalue())


def load(path: str | Path) -> tuple[Moments, str]:
    """What `Moments.save` or pytorch-fid wrote, and what it says about the features ("" where nothing).

    Raises:
      UserError: the file is missing, damaged, or holds something else. Nothing in it is unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {
                name: archive[name]
                for name in ("n", "total", "products", "about", "mu", "sigma")
                if name in archive.files
            }
            if not all(isinstance(array, np.ndarray) for array in found.values()):
                raise ValueError("a member is no array")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name an .npz of statistics, or a folder of pictures") from None
    except Exception as error:  # numpy and zipfile raise anything on bytes that are no such file
        raise UserError(f"{path} holds no statistics that can be read ({one_line(error)})") from None
    own = {"n", "total", "products"} <= found.keys()
    if not own and not {"mu", "sigma"} <= found.keys():
        raise UserError(f"{path} has neither mu and sigma nor sums; name statistics of features")
    total, products = (found["total"], found["products"]) if own else (found["mu"], found["sigma"])
    fits = total.ndim == 1 and 0 < len(total) <= MAX_WIDTH and products.shape == (len(total),) * 2
    if not fits or not all(np.issubdtype(x.dtype, np.floating) and np.isfinite(x).all() for x in (total, products)):
        raise UserError(
            f"{path} has statistics of shapes {total.shape} and {products.shape}, or numbers that are none"
        )
    n = int(found["n"]) if own and found["n"].shape == () and found["n"].dtype.kind in "iu" else 0
    if own and n < 1:
        raise UserError(f"{path} is of {n} pictures; name statistics of some")
    return Moments(n, total.astype(np.float64), products.astype(np.float64)), str(found.get("about", ""))


def check_rank(n: int, width: int, what: str) -> None:
    """Whether there are enough pictures for a covariance.

    Raises:
      UserError: with fewer than D + 1 the covariance is singular, and the distance mostly that of its absence.
    """
    if n <= width:
        raise UserError(
            f"{what}: {n} pictures make a singular covariance of {width} features; give at least"
            f" {width + 1} (ten times as many for a number to publish), or ask for kid, which needs fewer"
        )


class Frechet:
    """Squared Frechet distance to a reference, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): 0 for equal moments."""

    def __init__(self, reference: Moments):
        self._reference, self._covariance = reference, reference.covariance
        self._root = _root(self._covariance)

    def __call__(self, moments: Moments) -> float:
        covariance = moments.covariance
        apart = float(np.sum((moments.mean - self._reference.mean) ** 2))
        if np.array_equal(covariance, self._covariance):
            return apart
        # The trace of (C1 C2)^(1/2) is the sum of the singular values of R1 R2, R being the roots of C: no root is
        # taken of a product, whose rounding would count as its square root, and no complex numbers occur.
        values = np.linalg.svd(self._root @ _root(covariance), compute_uv=False)
        return apart + float(np.trace(covariance) + np.trace(self._covariance) - 2 * values.sum())


def at_infinity(features: Float[np.ndarray, "n D"], distance: Frechet, seed: int = 0) -> float:
    """The distance that infinitely many pictures would have (Chong & Forsyth 2020): a line in 1/n, at 0.

    Args:
      features: at least 2 (D + 1); of the first the line takes half of these, then more, to all.
      distance: to the reference, whose own number of pictures is left as it is.
      seed: of the order in which they are taken.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    counts = np.linspace(len(features) / 2, len(features), POINTS).astype(int)
    found = [distance(Moments.of(features[order[:count]])) for count in counts]
    return float(np.polyfit(1 / counts, found, 1)[1])


def _root(covariance):
    """Symmetric; of directions in which there is nothing but rounding, 0."""
    values, vectors = np.linalg.eigh(covariance)
    least = len(values) * np.finfo(values.dtype).eps * max(values[-1], 0)
    return (vectors * np.sqrt(np.where(values > least, values, 0))) @ vectors.T
