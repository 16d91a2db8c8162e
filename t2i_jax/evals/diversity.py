"""Are the pictures as different from one another as real ones, or is faithfulness bought with sameness?

Three questions, asked of pictures drawn for captions of the training distribution: how much do digits of one
value differ, do places and orders occur as often as in the data, and are digits copied from the training set.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.distance import cdist, pdist

from t2i_jax.data.scenes import CANVAS, DIGITS, JITTER, RELATIONS, Scene, caption, draw_scene
from t2i_jax.evals.detector import UNKNOWN, Reading, centred_handwriting
from t2i_jax.evals.faithfulness import Prompt, judge, relation_of

KINDS = {"single": "colours", "pair": "attribution", "count": "counting"}
"""Kinds of scene whose caption leaves something open, and the category that says whether a picture shows it."""
MEASURES = {
    "spread": ("distance of digits, relative to training digits, least of ten", ">= 0.75"),
    "placement": ("places: total variation from the data's, largest", "<= 0.15"),
    "order": ("order in pairs: total variation from the data's", "<= 0.15"),
    "copies": ("digits nearer to a training digit than 99% of unseen ones", "<= 0.05"),
}
"""What `measure` returns: in words, and what it should be."""
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


def measure(prompts: Sequence[Prompt], readings: Sequence[Sequence[Reading]]) -> dict[str, float]:
    """Diversity of pictures, one for each prompt.

    Args:
      prompts: of `make_open_prompts`.
      readings: what the detector reads in each picture.

    Returns:
      `spread`: mean distance between two digits of one value, over that between two training digits; the
        lowest of the ten values. Digits are recentred, distances are Euclidean over 16 x 16 strengths of ink.
      `placement`: total variation between how often places occur and how often they should (equally often);
        the largest over the layouts: one digit (3 x 3 places), two side by side or one above the other (each
        with 3 x 3 shifts), and two or three of four quadrants. Faithful pictures only.
      `order`: the same for which digit of a pair stands where (left, right, above, below).
      `copies`: share of digits nearer to a training digit than all but 1% of the unseen (validation) ones are.
      Where nothing could be measured, the worst value.
    """
    digits: dict[int, list] = {value: [] for value in range(len(DIGITS))}
    for reading in (reading for picture in readings for reading in picture):
        if reading.digit != UNKNOWN:
            digits[reading.digit].append(reading.ink)
    places: dict[str, Counter] = {layout: Counter() for layout in _PLACES}
    orders: Counter = Counter()
    for prompt, picture in zip(prompts, readings, strict=True):
        if not judge(prompt, picture):
            continue
        layout, place, order = _describe(prompt.scene, picture)
        if layout in places:
            places[layout][place] += 1
        if order:
            orders[order] += 1
    training, values = centred_handwriting("train")
    return {
        "spread": min(_spread(digits[value], training[values == value]) for value in digits),
        "placement": max(_variation(places[layout], kinds) for layout, kinds in _PLACES.items()),
        "order": _variation(orders, len(RELATIONS)),
        "copies": _copies([ink for same in digits.values() for ink in same], training),
    }


_PLACES = {"single": 9, "left of": 9, "above": 9, "2 quadrants": 6, "3 quadrants": 4}
"""Layouts, and how many places each of them has."""


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


def _variation(counts: Counter, kinds: int) -> float:
    """Total variation between the shares of `counts` and equal shares of `kinds`; 1 where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return 1.0
    shares = np.zeros(max(kinds, len(counts)))
    shares[: len(counts)] = np.array(list(counts.values())) / total
    equal = np.where(np.arange(len(shares)) < kinds, 1 / kinds, 0)
    return float(np.abs(shares - equal).sum() / 2)


def _spread(inks: Sequence[Float32[np.ndarray, "16 16"]], real: Float32[np.ndarray, "n 16 16"]) -> float:
    if len(inks) < 2:
        return 0.0
    return float(pdist(_flat(inks)).mean() / pdist(_flat(real)).mean())


def _copies(inks: Sequence[Float32[np.ndarray, "16 16"]], training: Float32[np.ndarray, "n 16 16"]) -> float:
    if not inks:
        return 1.0
    unseen = cdist(_flat(centred_handwriting("validation")[0]), _flat(training)).min(1)
    drawn = cdist(_flat(inks), _flat(training)).min(1)
    return float(np.mean(drawn < np.quantile(unseen, 0.01)))


def _flat(inks) -> Float[np.ndarray, "n 256"]:
    return np.reshape(np.asarray(inks), (len(inks), -1))


def format_table(columns: dict[str, dict[str, float]]) -> str:
    """A plain table: one row a measure, one column a name, and what the measure should be."""
    width = max(len(words) for words, _ in MEASURES.values())
    lines = ["  ".join(["diversity".ljust(width), *columns, "should be"])]
    for name, (words, limit) in MEASURES.items():
        cells = (f"{scores[name]:.3f}".rjust(len(column)) for column, scores in columns.items())
        lines.append("  ".join([words.ljust(width), *cells, limit.rjust(9)]))
    return "\n".join(lines)
