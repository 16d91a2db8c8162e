"""Are the pictures as different from one another as real ones, or is faithfulness bought with sameness?

Two questions, asked of pictures drawn for captions of the training distribution: how much do digits of one value
differ, and do places and orders occur as often as in the data. Whether digits are copies is asked in `copies`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist, squareform

from t2i_jax.data.scenes import CANVAS, DIGITS, JITTER, RELATIONS, Scene, caption, draw_scene
from t2i_jax.evals import intervals, tables
from t2i_jax.evals.detector import UNKNOWN, Reading, centred_handwriting
from t2i_jax.evals.faithfulness import Prompt, judge, relation_of

KINDS = {"single": "colours", "pair": "attribution", "count": "counting"}
"""Kinds of scene whose caption leaves something open, and the category that says whether a picture shows it."""
MEASURES = {
    "spread": ("distance of digits, relative to training digits, least of ten", ">= 0.75"),
    "placement": ("places: total variation from the data's, largest", "<= 0.15"),
    "order": ("order in pairs: total variation from the data's", "<= 0.15"),
}
"""What is measured: in words, and what it should be."""
ROUNDS = 100  # of the bootstrap
_MIDDLE = (CANVAS - 1) / 2


def make_open_prompts(seed: int, per_kind: int = 1000) -> list[Prompt]:
    """Draws prompts that leave places, and for pairs the order, to the picture; values of a pair differ.

    Args:
      seed: of the draw.
      per_kind: prompts for each of KINDS, drawn as training captions are: repeats occur.
    """
    prompts = []
    for number, (kind, category) in enumerate(KINDS.items()):
        rng = np.random.default_rng([seed, number])
        while len(prompts) < (number + 1) * per_kind:
            scene = draw_scene(rng, kind)
            if kind != "pair" or scene.digits[0].value != scene.digits[1].value:
                prompts.append(Prompt(category, scene, caption(scene)))
    return prompts


class Diversity:
    """Diversity of pictures, one for each prompt, in numbers of which prompts can be drawn again.

    Args:
      prompts: of `make_open_prompts`.
      readings: what the detector reads in each picture.
      fine: whether the data's digits stray by every pixel (see `scenes.render`).
    """

    def __init__(self, prompts: Sequence[Prompt], readings: Sequence[Sequence[Reading]], *, fine: bool = False):
        digits: dict[int, list] = {value: [] for value in range(len(DIGITS))}
        for number, reading in ((i, reading) for i, picture in enumerate(readings) for reading in picture):
            if reading.digit != UNKNOWN:
                digits[reading.digit].append((number, reading.ink))
        self._expected = _expected_places(fine)
        self._places: dict[str, list] = {layout: [] for layout in self._expected}
        self._orders: list = []
        for number, (prompt, picture) in enumerate(zip(prompts, readings, strict=True)):
            if not judge(prompt, picture):
                continue
            layout, place, order = _describe(prompt.scene, picture)
            if layout in self._places:
                self._places[layout].append((number, place))
            if order:
                self._orders.append((number, order))
        training, values = centred_handwriting("train")
        self._distances = [
            (np.array([number for number, _ in found], int), _pairwise([ink for _, ink in found]))
            for found in digits.values()
        ]
        self._real = [pdist(_flat(training[values == value])).mean() for value in digits]
        self._kinds = [prompt.scene.kind for prompt in prompts]

    def scores(self, weights: Int[np.ndarray, " P"] | None = None) -> dict[str, float]:
        """The MEASURES; where nothing could be measured, the worst value.

        Args:
          weights: how many times each prompt counts; once by default.

        Returns:
          `spread`: mean distance between two digits of one value, over that between two training digits; the
            lowest of the ten values. Digits are recentred, distances are Euclidean over 16 x 16 strengths of ink.
          `placement`: total variation between how often places occur and how often they do in the data; the
            largest over the layouts: one digit (3 x 3 places), two side by side or one above the other (each
            with 3 x 3 shifts), and two or three of four quadrants. Faithful pictures only.
          `order`: the same for which digit of a pair stands where (left, right, above, below).
        """
        weights = np.ones(len(self._kinds), int) if weights is None else weights
        spreads = [
            _mean_distance(distances, weights[numbers]) / real
            for (numbers, distances), real in zip(self._distances, self._real, strict=True)
        ]
        places = [
            _variation(_count(found, weights), self._expected[layout]) for layout, found in self._places.items()
        ]
        return {
            "spread": float(min(spreads)),
            "placement": float(max(places)),
            "order": float(_variation(_count(self._orders, weights), dict.fromkeys(RELATIONS, 1 / len(RELATIONS)))),
        }

    def intervals(self) -> dict[str, intervals.Interval]:
        """95% intervals of `scores`: other prompts of each kind, with the pictures drawn for them."""
        return intervals.bootstrap(self.scores, self._kinds, ROUNDS)


def measure(prompts: Sequence[Prompt], readings: Sequence[Sequence[Reading]], *, fine: bool = False) -> dict:
    """The `scores` of a `Diversity`."""
    return Diversity(prompts, readings, fine=fine).scores()


def _expected_places(fine: bool) -> dict[str, dict[tuple, float]]:
    """Layouts, their places, and how often each of those occurs in the data."""
    shifts = range(-JITTER, JITTER + 1) if fine else (-JITTER, 0, JITTER)
    thirds = Counter(_third(_MIDDLE + shift) for shift in shifts)
    shifted = {
        (one, other): thirds[one] * thirds[other] / len(shifts) ** 2 for one, other in product(thirds, repeat=2)
    }
    expected = {"single": shifted, "left of": shifted, "above": shifted}
    for count in (2, 3):
        chosen = list(combinations(product((False, True), repeat=2), count))
        expected[f"{count} quadrants"] = dict.fromkeys(chosen, 1 / len(chosen))
    return expected


def _describe(scene: Scene, picture: Sequence[Reading]) -> tuple[str, tuple, str]:
    """Layout, place within it, and which digit of a pair stands where ("" for other scenes)."""
    if scene.kind == "single":
        return "single", (_third(picture[0].y), _third(picture[0].x)), ""
    if scene.kind == "count":
        quadrants = sorted((reading.y > _MIDDLE, reading.x > _MIDDLE) for reading in picture)
        return f"{len(picture)} quadrants", tuple(quadrants), ""
    first, second = sorted(picture, key=lambda reading: reading.digit != scene.digits[0].value)
    order = relation_of(first, second)
    if order in ("left of", "right of"):
        one, other = sorted(picture, key=lambda reading: reading.x)
        return "left of", (_third(one.y), _third(other.y)), order
    one, other = sorted(picture, key=lambda reading: reading.y)
    return "above", (_third(one.x), _third(other.x)), order


def _third(centre: float) -> int:
    """Which of three shifts, -1, 0 or 1, brings a digit's centre there."""
    return int(np.clip(np.rint((centre - _MIDDLE) / JITTER), -1, 1))


def _variation(counts: Counter, expected: dict) -> float:
    """Total variation between the shares of `counts` and the expected ones; 1 where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return 1.0
    return sum(abs(counts[kind] / total - expected.get(kind, 0)) for kind in counts | expected) / 2


def _count(found: Sequence[tuple], weights: np.ndarray) -> Counter:
    counts: Counter = Counter()
    for number, kind in found:
        counts[kind] += int(weights[number])
    return counts


def _pairwise(inks: Sequence[np.ndarray]) -> Float[np.ndarray, "n n"]:
    return squareform(pdist(_flat(inks))) if len(inks) > 1 else np.zeros((len(inks), len(inks)))


def _mean_distance(distances: Float[np.ndarray, "n n"], weights: Int[np.ndarray, " n"]) -> float:
    """Of two different ones, which counts as many times as their weights multiply to; 0 of fewer than two."""
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return float(weights @ distances @ weights / pairs) if pairs else 0.0


def _flat(inks) -> Float[np.ndarray, "n 256"]:
    return np.reshape(np.asarray(inks), (len(inks), -1))


def format_table(
    columns: dict[str, dict[str, float]],
    of_columns: dict[str, dict[str, intervals.Interval]] | None = None,
) -> str:
    """A plain table: one row a measure, one column a name, and what the measure should be."""
    rows = {
        words: [
            *(
                intervals.cell(scores[name], (of_columns or {}).get(column, {}).get(name))
                for column, scores in columns.items()
            ),
            limit,
        ]
        for name, (words, limit) in MEASURES.items()
    }
    return tables.format_table("diversity", [*columns, "should be"], rows)
