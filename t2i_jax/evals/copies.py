"""Are digits drawn anew, or recited from the training set? A two-sample test for data copying (Meehan et al. 2020).

Every instance of handwriting goes through the tokenizer, as a drawn digit has come out of it: decoded training
digits stand on one side, decoded digits that nobody trained on stand on the other. Were the drawn digits new, the
nearest of all would be a training digit as often as there are more of those. What is beyond that, divided by what
could be, is 0 for new digits and 1 where each stands nearest to a training digit.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from t2i_jax.data.scenes import CELL, COLOURS, Digit, Scene, corners_of, handwriting, paint
from t2i_jax.evals import intervals, tables
from t2i_jax.evals.detector import UNKNOWN, Reading, centred_ink
from t2i_jax.evals.pictures import reconstruct

PLACES = 8  # at which every instance is decoded: the tokenizer draws it differently at each
TIMES = 4  # that an instance is decoded to be looked at
CHUNK = 1000  # digits compared at a time


class Copies:
    """Handwriting as a tokenizer draws it.

    Unseen handwriting (360 instances) is halved: each half is compared with in turn, and digits of the other half
    show what new ones score.
    """

    def __init__(self, tokenizer, *, fine: bool = False, seed: int = 0):
        self._tokenizer, self._fine = tokenizer, fine
        self._rng = np.random.default_rng([seed, 2])
        self.training, unseen = handwriting("train")[0], handwriting("validation")[0]
        self.halves = unseen[::2], unseen[1::2]
        self._known = self.decoded(self.training, PLACES)
        self._new = [self.decoded(half, PLACES) for half in self.halves]

    def decoded(self, ink: Float32[np.ndarray, "n 16 16"], times: int = 1) -> Float32[np.ndarray, "m 16 16"]:
        """All instances after the tokenizer, recentred, and all again, each at another place in another colour."""
        ink = np.tile(ink, (times, 1, 1))
        scenes = [Scene("single", (Digit(str(self._rng.choice(COLOURS)), 0),)) for _ in ink]
        corners = [corners_of(scene, self._rng, self._fine)[0] for scene in scenes]
        pictures = [paint(scene, [one], [at]) for scene, one, at in zip(scenes, ink, corners, strict=True)]
        images = reconstruct(self._tokenizer, np.stack(pictures))
        crops = [image[y : y + CELL, x : x + CELL] for image, (y, x) in zip(images, corners, strict=True)]
        return centred_ink(np.stack(crops).astype(np.float32) / 255)

    def scores(self, inks: Float32[np.ndarray, "n 16 16"], half: int) -> Float[np.ndarray, " n"]:
        """A score for each digit; the mean is 0 for new digits, and 1 where the nearest is always a training digit.

        Args:
          inks: of digits, recentred.
          half: of unseen handwriting, 0 or 1, that is compared with.
        """
        asked = inks.reshape(-1, CELL * CELL)
        parts = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
        nearest = [_distance(part, self._known) < _distance(part, self._new[half]) for part in parts]
        by_chance = len(self.training) / (len(self.training) + len(self.halves[half]))
        return (np.concatenate(nearest) - by_chance) / (1 - by_chance)

    def measure(self, readings: Sequence[Sequence[Reading]]) -> dict[str, dict]:
        """Scores and 95% intervals: of the digits in pictures, of a reciter of the training set, of new digits.

        Args:
          readings: what the detector reads in P pictures.

        Returns:
          `{"generated", "recited", "new": {"score", "interval", "digits"}}`. The intervals are over pictures, or
          instances. Which unseen digits are compared with moves all three scores together. Without a digit in
          the pictures, "generated" is missing.
        """
        found = [(i, one.ink) for i, picture in enumerate(readings) for one in picture if one.digit != UNKNOWN]
        results = {}
        if found:
            owners, inks = zip(*found, strict=True)
            inks = np.stack(inks)
            results["generated"] = _with_interval((self.scores(inks, 0) + self.scores(inks, 1)) / 2, owners)
        recited, instances = self.decoded(self.training, TIMES), np.tile(np.arange(len(self.training)), TIMES)
        results["recited"] = _with_interval((self.scores(recited, 0) + self.scores(recited, 1)) / 2, instances)
        fresh = [self.scores(self.decoded(half, TIMES), 1 - i) for i, half in enumerate(self.halves)]
        instances = [np.tile(np.arange(len(half)) + i * 1000, TIMES) for i, half in enumerate(self.halves)]
        results["new"] = _with_interval(np.concatenate(fresh), np.concatenate(instances))
        return results


def _with_interval(scores, owners) -> dict:
    """The mean, and its interval over what the scores belong to."""
    _, owners = np.unique(owners, return_inverse=True)
    interval = intervals.bootstrap(
        lambda weights: {"score": float(np.average(scores, weights=weights[owners]))}, np.zeros(owners.max() + 1)
    )
    return {"score": float(scores.mean()), "interval": interval["score"], "digits": len(scores)}


def format_table(measured: dict[str, dict]) -> str:
    """A plain table of one row."""
    titles = {"generated": "generated", "recited": "training digits", "new": "unseen digits"}
    cells = [intervals.cell(own["score"], own["interval"]) for own in measured.values()]
    row = "nearest is a training digit: 0 by chance, 1 always"
    return tables.format_table("copies", [titles[name] for name in measured], {row: cells})


def _distance(
    asked: Float32[np.ndarray, "n D"], known: Float32[np.ndarray, "m 16 16"]
) -> Float32[np.ndarray, " n"]:
    """Squared distance to the nearest, less the squared length of what is asked, which both sides share."""
    known = known.reshape(len(known), -1)
    return (np.sum(known**2, axis=1) - 2 * asked @ known.T).min(1)
