"""Are digits drawn anew, or recited from the training set? A two-sample test for data copying (Meehan et al. 2020).

Every instance of handwriting goes through the tokenizer, as a drawn digit has come out of it: decoded training
digits stand on one side, decoded digits that nobody trained on stand on the other. Were the drawn digits new, the
nearest of all would be a training digit as often as there are more of those. What is beyond that, divided by what
could be, is 0 for new digits and 1 where each stands nearest to a training digit.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int
from numpy.typing import ArrayLike

from t2i_jax.data.scenes import CELL, COLOURS, Digit, Scene, corners_of, handwriting, paint
from t2i_jax.evals import intervals, tables
from t2i_jax.evals.detector import UNKNOWN, Reading, centred_ink
from t2i_jax.evals.pictures import reconstruct

PLACES = 8  # at which every instance is decoded: the tokenizer draws it differently at each
TIMES = 4  # that an instance is decoded to be looked at
CHUNK = 1000  # digits compared at a time


class Copies:
    """Handwriting as a tokenizer draws it: 1,077 training instances and 360 unseen ones, at several places each."""

    def __init__(self, tokenizer, *, fine: bool = False, seed: int = 0):
        self._tokenizer, self._fine = tokenizer, fine
        self._rng = np.random.default_rng([seed, 2])
        self.training, self.unseen = handwriting("train")[0], handwriting("validation")[0]
        self.known, self.new = (self.decoded(ink, PLACES) for ink in (self.training, self.unseen))

    def decoded(self, ink: Float32[np.ndarray, "n 16 16"], times: int) -> Float32[np.ndarray, "{times}*n 16 16"]:
        """All instances after the tokenizer, recentred, and all again, each at another place in another colour."""
        ink = np.tile(ink, (times, 1, 1))
        scenes = [Scene("single", (Digit(str(self._rng.choice(COLOURS)), 0),)) for _ in ink]
        corners = [corners_of(scene, self._rng, self._fine)[0] for scene in scenes]
        pictures = [paint(scene, [one], [at]) for scene, one, at in zip(scenes, ink, corners, strict=True)]
        images = reconstruct(self._tokenizer, np.stack(pictures))
        crops = [image[y : y + CELL, x : x + CELL] for image, (y, x) in zip(images, corners, strict=True)]
        return centred_ink(np.stack(crops).astype(np.float32) / 255)

    def nearest(
        self, inks: Float32[np.ndarray, "n 16 16"], own: Int[np.ndarray, " n"] | None = None
    ) -> Int[np.ndarray, " n"]:
        """The unseen instance that is nearest of all to each digit; -1 where a training instance is nearer.

        Args:
          inks: of digits, recentred.
          own: an unseen instance for each, which does not count.
        """
        asked, found = inks.reshape(-1, CELL * CELL), []
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]
            new = _distances(part, self.new).reshape(len(part), -1, len(self.unseen)).min(1)
            if own is not None:
                new[np.arange(len(part)), own[start : start + CHUNK]] = np.inf
            nearer = _distances(part, self.known).min(1) < new.min(1)
            found.append(np.where(nearer, -1, new.argmin(1)))
        return np.concatenate(found)

    def measure(self, readings: Sequence[Sequence[Reading]]) -> dict[str, dict]:
        """Scores and 95% intervals: of the digits in pictures, of a reciter of the training set, of new digits.

        Args:
          readings: what the detector reads in P pictures.

        Returns:
          `{"generated", "recited", "new": {"score", "interval", "digits"}}`. Intervals are those of other pictures
          and of other unseen instances to compare with. Without a digit in the pictures, "generated" is missing.
        """
        found = [(i, one.ink) for i, picture in enumerate(readings) for one in picture if one.digit != UNKNOWN]
        results = {}
        if found:
            owners, inks = zip(*found, strict=True)
            results["generated"] = self.score(self.nearest(np.stack(inks)), np.array(owners))
        recited, instances = self.decoded(self.training, TIMES), np.tile(np.arange(len(self.training)), TIMES)
        results["recited"] = self.score(self.nearest(recited), instances)
        fresh, instances = self.decoded(self.unseen, TIMES), np.tile(np.arange(len(self.unseen)), TIMES)
        results["new"] = self.score(self.nearest(fresh, instances), instances, len(self.unseen) - 1)
        return results

    def score(self, nearest: Int[np.ndarray, " n"], owners: ArrayLike, compared: int | None = None) -> dict:
        """0 where training instances are nearest as often as of new digits, 1 where they always are.

        Args:
          nearest: see the method of that name.
          owners: the picture, or the instance, that each digit belongs to.
          compared: unseen instances that could be nearest; all by default.
        """
        compared, (_, owners) = compared or len(self.unseen), np.unique(owners, return_inverse=True)
        by_chance = compared / (len(self.training) + compared)
        count, is_new = owners.max() + 1, nearest >= 0

        def score(weights):
            own, instances = weights[owners], weights[count:]
            return {"score": float(1 - np.average(is_new * instances[nearest], weights=own) / by_chance)}

        strata = np.repeat([0, 1], [count, len(self.unseen)])
        once = score(np.ones(len(strata), int))
        return once | {"interval": intervals.bootstrap(score, strata)["score"], "digits": len(nearest)}


def format_table(measured: dict[str, dict]) -> str:
    """A plain table of one row."""
    titles = {"generated": "generated", "recited": "training digits", "new": "unseen digits"}
    cells = [intervals.cell(own["score"], own["interval"]) for own in measured.values()]
    row = "nearest is a training digit: 0 by chance, 1 always"
    return tables.format_table("copies", [titles[name] for name in measured], {row: cells})


def _distances(asked: Float32[np.ndarray, "n D"], known: Float32[np.ndarray, "m 16 16"]):
    """Squared distances, less the squared length of what is asked, which all share."""
    known = known.reshape(len(known), -1)
    return np.sum(known**2, axis=1) - 2 * asked @ known.T
