"""Are the pictures as different from one another as real ones, or is faithfulness bought with sameness?

Three questions, asked of pictures drawn for captions of the training distribution: how much do digits of one
value differ, do places and orders occur as often as in the data, and are digits copied from the training set.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.distance import cdist, pdist

from t2i_jax.data.scenes import CANVAS, DIGITS, JITTER, RELATIONS, Scene, caption, draw_scene
from t2i_jax.evals import tables
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


def measure(
    prompts: Sequence[Prompt], readings: Sequence[Sequence[Reading]], *, fine: bool = False
) -> dict[str, float]:
    """Diversity of pictures, one for each prompt.

    Args:
      prompts: of `make_open_prompts`.
      readings: what the detector reads in each picture.
      fine: whether the data's digits stray by every pixel (see `scenes.render`).

    Returns:
      `spread`: mean distance between two digits of one value, over that between two training digits; the
        lowest of the ten values. Digits are recentred, distances are Euclidean over 16 x 16 strengths of ink.
      `placement`: total variation between how often places occur and how often they do in the data; the largest
        over the layouts: one digit (3 x 3 places), two side by side or one above the other (each
        with 3 x 3 shifts), and two or three of four quadrants. Faithful pictures only.
      `order`: the same for which digit of a pair stands where (left, right, above, below).
      `copies`: share of digits nearer to a training digit than all but 1% of the unseen (validation) ones are.
      Where nothing could be measured, the worst value.
    """
    digits: dict[int, list] = {value: [] for value in range(len(DIGITS))}
    for reading in (reading for picture in readings for reading in picture):
        if reading.digit != UNKNOWN:
            digits[reading.digit].append(reading.ink)
    expected = _expected_places(fine)
    places: dict[str, Counter] = {layout: Counter() for layout in expected}
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
        "placement": max(_variation(places[layout], shares) for layout, shares in expected.items()),
        "order": _variation(orders, dict.fromkeys(RELATIONS, 1 / len(RELATIONS))),
        "copies": _copies([ink for same in digits.values() for ink in same], training),
    }


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
    rows = {
        words: [*(f"{scores[name]:.3f}" for scores in columns.values()), limit]
        for name, (words, limit) in MEASURES.items()
    }
    return tables.format_table("diversity", [*columns, "should be"], rows)
