"""Diversity: open prompts, and places, orders and spread worked out by hand."""

import itertools
from collections import Counter

import numpy as np
import pytest
from readings import MIDDLE, moved

from t2i_jax.data.scenes import CELL, HELD_OUT, Digit, Scene, caption
from t2i_jax.evals import diversity
from t2i_jax.evals.detector import Reading, centred_handwriting
from t2i_jax.evals.diversity import make_open_prompts, measure
from t2i_jax.evals.faithfulness import Prompt, judge

SHIFTS = (-4, 0, 4)


# --- prompts


def test_open_prompts_are_of_three_kinds_and_drawn_like_training_captions():
    prompts = make_open_prompts(seed=0, per_kind=300)
    kinds = [(prompt.scene.kind, prompt.category) for prompt in prompts]
    assert kinds == [("single", "colours")] * 300 + [("pair", "attribution")] * 300 + [("count", "counting")] * 300
    for prompt in prompts:
        assert prompt.caption == caption(prompt.scene)
        assert not any((digit.colour, digit.value) in HELD_OUT for digit in prompt.scene.digits)
        if prompt.scene.kind == "pair":
            assert prompt.scene.digits[0].value != prompt.scene.digits[1].value
    singles = Counter(prompt.caption for prompt in prompts[:300])
    assert 60 < len(singles) <= 76  # nearly all there are, and so with repeats
    assert prompts == make_open_prompts(seed=0, per_kind=300)
    assert prompts != make_open_prompts(seed=1, per_kind=300)


# --- by hand


@pytest.mark.parametrize(
    ("counts", "kinds", "variation"),
    [
        ([], 4, 1.0),
        ([5], 1, 0.0),
        ([7], 4, 0.75),
        ([2, 2, 2, 2], 4, 0.0),
        ([3, 1], 2, 0.25),
        ([1, 1], 4, 0.5),
        ([4, 3, 2, 1], 4, 0.2),
        ([1, 1, 1], 2, 1 / 3),  # more kinds than there should be
    ],
)
def test_variation_by_hand(counts, kinds, variation):
    assert diversity._variation(
        Counter(dict(enumerate(counts))), dict.fromkeys(range(kinds), 1 / kinds)
    ) == pytest.approx(variation)


RED_3, BLUE_7 = Digit("red", 3), Digit("blue", 7)
SINGLE, PAIR = Scene("single", (RED_3,)), Scene("pair", (RED_3, BLUE_7))
QUADRANTS = [(y, x) for y in (7.5, 23.5) for x in (7.5, 23.5)]


def seen(scene, centres):
    """A prompt, and what is read where its digits stand at `centres`."""
    category = diversity.KINDS[scene.kind]
    readings = [
        Reading(digit.value, digit.colour, y, x, np.zeros((CELL, CELL), np.float32))
        for digit, (y, x) in zip(scene.digits, centres, strict=True)
    ]
    return Prompt(category, scene, caption(scene)), readings


def every_place():
    """By layout, one picture of every place, or for pairs two, one of each order."""
    places = {"single": [seen(SINGLE, [(MIDDLE + y, MIDDLE + x)]) for y in SHIFTS for x in SHIFTS]}
    shifts = list(itertools.product(SHIFTS, SHIFTS))
    side = [[(MIDDLE + a, 7.5), (MIDDLE + b, 23.5)] for a, b in shifts]
    high = [[(7.5, MIDDLE + a), (23.5, MIDDLE + b)] for a, b in shifts]
    for layout, pairs in (("left of", side), ("above", high)):
        places[layout] = [seen(PAIR, order) for pair in pairs for order in (pair, pair[::-1])]
    for count in (2, 3, 4):
        scene = Scene("count", (RED_3,) * count)
        # The order in which the detector names them does not matter.
        chosen = itertools.combinations(QUADRANTS, count)
        places[f"{count} quadrants"] = [seen(scene, pick[:: (-1) ** i]) for i, pick in enumerate(chosen)]
    return places


def measure_pictures(places):
    return measure(*zip(*itertools.chain(*places.values()), strict=True))


def test_every_place_and_order_once_is_as_it_should_be():
    places = every_place()
    assert [len(pictures) for pictures in places.values()] == [9, 18, 18, 6, 4, 1]
    assert all(judge(*picture) for picture in itertools.chain(*places.values()))
    measured = measure_pictures(places)
    assert (measured["placement"], measured["order"]) == pytest.approx((0, 0))
    assert measured["spread"] == 0  # most digits do not occur


@pytest.mark.parametrize(
    ("layout", "lost", "expected"),
    [
        ("single", 1, 1 / 9),
        ("left of", 2, 1 / 9),
        ("above", 2, 1 / 9),
        ("2 quadrants", 1, 1 / 6),
        ("3 quadrants", 1, 1 / 4),
        ("4 quadrants", 1, 0),  # there is only one way to fill four
        ("single", 9, 1),
        ("left of", 18, 1),
        ("3 quadrants", 4, 1),
    ],
)
def test_a_place_that_never_occurs_by_hand(layout, lost, expected):
    places = every_place()
    places[layout] = places[layout][lost:]
    assert measure_pictures(places)["placement"] == pytest.approx(expected)


def test_orders_by_hand():
    """Nine of each order; without the 7 left of the 3 shares are 1/3, 0, 1/3, 1/3, and so 1/4 away."""
    places = every_place()
    places["left of"] = places["left of"][::2]
    measured = measure_pictures(places)
    assert measured["order"] == pytest.approx(1 / 4)
    assert measured["placement"] == pytest.approx(0)
    del places["left of"]
    assert measure_pictures(places)["order"] == pytest.approx(1 / 2)
    assert measure_pictures({"single": places["single"]})["order"] == 1


def test_a_stray_pixel_changes_no_place():
    rng = np.random.default_rng(0)

    def strayed(picture):
        prompt, readings = picture
        return prompt, moved(
            readings, [(r.y + rng.uniform(-1.5, 1.5), r.x + rng.uniform(-1.5, 1.5)) for r in readings]
        )

    places = {layout: [strayed(picture) for picture in pictures] for layout, pictures in every_place().items()}
    measured = measure_pictures(places)
    assert (measured["placement"], measured["order"]) == pytest.approx((0, 0))


def test_spread_by_hand(prompts):
    """Training digits are as far apart as training digits; the value with the least decides."""
    ink, values = centred_handwriting("train")

    def spread(scales):
        readings = [Reading(int(v), "red", 8.0, 8.0, crop * scales[v]) for v, crop in zip(values, ink, strict=True)]
        return measure(prompts[:1], [readings])["spread"]

    assert spread([1] * 10) == pytest.approx(1)
    assert spread([1] * 6 + [0.5] + [1] * 3) == pytest.approx(0.5)
    assert spread([1] * 6 + [0.5, 1, 0, 1]) == pytest.approx(0)


def test_weights_count_prompts_as_often(prompts):
    """A prompt of weight 2 is a prompt that stands there twice, but that a digit is no pair with itself."""
    prompts, readings = map(list, zip(*itertools.chain(*every_place().values()), strict=True))
    rng = np.random.default_rng(0)
    readings = [[Reading(r.digit, r.colour, r.y, r.x, rng.random((16, 16))) for r in one] for one in readings]
    weights = rng.integers(0, 3, len(prompts))
    again = np.repeat(np.arange(len(prompts)), weights)
    twice = diversity.Diversity([prompts[i] for i in again], [readings[i] for i in again]).scores()
    found = diversity.Diversity(prompts, readings).scores(weights)
    assert (found["placement"], found["order"]) == pytest.approx((twice["placement"], twice["order"]))
    assert diversity._mean_distance(np.array([[0.0, 3.0], [3.0, 0.0]]), np.array([2, 1])) == 3
