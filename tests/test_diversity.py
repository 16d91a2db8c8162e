"""Diversity: hand-worked places and orders, real pictures that pass, and sameness of every kind that does not."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from t2i_jax.data.scenes import CELL, HELD_OUT, Digit, Scene, caption, render
from t2i_jax.evals import diversity
from t2i_jax.evals.detector import UNKNOWN, Detector, Reading, centred_handwriting
from t2i_jax.evals.diversity import MEASURES, make_open_prompts, measure
from t2i_jax.evals.faithfulness import Prompt, judge, real_scenes

WORST = {"spread": 0.0, "placement": 1.0, "order": 1.0, "copies": 1.0}
MIDDLE = 15.5
SHIFTS = (-4, 0, 4)


def failed(measured):
    """The measures that are not what they should be."""
    bad = set()
    for name, (_, limit) in MEASURES.items():
        sign, _, value = limit.partition(" ")
        good = {">=": measured[name] >= float(value), "<=": measured[name] <= float(value)}[sign]
        bad |= set() if good else {name}
    return bad


@pytest.fixture(scope="module")
def detector():
    return Detector()


@pytest.fixture(scope="module")
def prompts():
    return make_open_prompts(seed=0, per_kind=400)


@pytest.fixture(scope="module")
def real(prompts, detector):
    """What is read in real pictures, one a prompt."""
    return detector(real_scenes(prompts, 1, seed=0)[:, 0])


@pytest.fixture(scope="module")
def ideal(prompts, real):
    return measure(prompts, real)


def changed(readings, change):
    """Readings with fields that `change(reading)` says."""
    return [[dataclasses.replace(reading, **change(reading)) for reading in picture] for picture in readings]


def moved(readings, corners):
    """The objects of a picture, one after another, to other places."""
    return [dataclasses.replace(reading, y=y, x=x) for reading, (y, x) in zip(readings, corners, strict=True)]


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
    assert diversity._variation(Counter(dict(enumerate(counts))), kinds) == pytest.approx(variation)


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


def test_copies_by_hand(prompts):
    """Of training digits all are, of unseen ones 1%, of a mixture the share."""
    train, validation = (
        [Reading(int(v), "red", 8.0, 8.0, crop) for crop, v in zip(*centred_handwriting(split), strict=True)]
        for split in ("train", "validation")
    )
    assert measure(prompts[:1], [train])["copies"] == 1
    assert measure(prompts[:1], [validation])["copies"] == pytest.approx(0.01, abs=0.003)
    assert measure(prompts[:1], [train[:40] + validation])["copies"] == pytest.approx(44 / 400, abs=0.003)
    messes = [Reading(UNKNOWN, "red", 8.0, 8.0, reading.ink) for reading in train]
    assert measure(prompts[:1], [messes + validation])["copies"] == measure(prompts[:1], [validation])["copies"]


# --- with real pictures


def test_real_pictures_are_as_they_should_be(ideal):
    assert failed(ideal) == set()
    assert ideal["spread"] > 0.8
    assert ideal["copies"] <= 0.02


def test_training_digits_are_copies_and_nothing_else(prompts, detector):
    rng = np.random.default_rng(0)
    pictures = np.stack([render(prompt.scene, "train", rng) for prompt in prompts])
    measured = measure(prompts, detector(pictures))
    assert failed(measured) == {"copies"}
    assert measured["copies"] > 0.5


def test_one_instance_of_each_digit_has_no_spread(prompts, real, ideal):
    for split, bad in (("train", {"spread", "copies"}), ("validation", {"spread"})):
        ink, values = centred_handwriting(split)
        first = {value: ink[np.flatnonzero(values == value)[5]] for value in range(10)}
        measured = measure(prompts, changed(real, lambda reading, first=first: {"ink": first[reading.digit]}))
        assert failed(measured) == bad
        assert measured["spread"] == pytest.approx(0, abs=1e-6)
        assert {**ideal, **{name: measured[name] for name in ("spread", "copies")}} == measured


def test_one_digit_that_is_always_the_same_is_enough_to_fail(prompts, real):
    ink, values = centred_handwriting("validation")
    nine = ink[values == 9][0]
    same = changed(real, lambda reading: {"ink": nine} if reading.digit == 9 else {})
    assert failed(measure(prompts, same)) == {"spread"}


@pytest.mark.parametrize(
    ("kind", "count", "places", "least"),
    [
        ("single", 1, [(MIDDLE, MIDDLE)], 8 / 9),
        ("count", 2, [(7.5, 7.5), (23.5, 23.5)], 5 / 6),
        ("count", 3, [(7.5, 7.5), (7.5, 23.5), (23.5, 7.5)], 3 / 4),
    ],
)
def test_all_at_one_place_fails_placement(prompts, real, ideal, kind, count, places, least):
    readings = [
        moved(picture, places)
        if (prompt.scene.kind, len(prompt.scene.digits)) == (kind, count) and judge(prompt, picture)
        else picture
        for prompt, picture in zip(prompts, real, strict=True)
    ]
    measured = measure(prompts, readings)
    assert failed(measured) == {"placement"}
    assert measured == ideal | {"placement": pytest.approx(least)}


@pytest.mark.parametrize("axis", ["y", "x"])
def test_pairs_that_never_stray_fail_placement(prompts, real, ideal, axis):
    """Left of and right of are free in y, above and below in x."""

    def to_middle(prompt, picture):
        if prompt.scene.kind != "pair" or len(picture) != 2:
            return picture
        one, other = picture
        if (abs(one.x - other.x) > abs(one.y - other.y)) != (axis == "y"):
            return picture
        return [dataclasses.replace(reading, **{axis: MIDDLE}) for reading in picture]

    measured = measure(prompts, [to_middle(*pair) for pair in zip(prompts, real, strict=True)])
    assert failed(measured) == {"placement"}
    assert measured == ideal | {"placement": pytest.approx(8 / 9)}


def test_all_pairs_in_one_order_fail_order_alone(prompts, real, ideal):
    """The digit that is named first stands left or above."""

    def ordered(prompt, picture):
        if prompt.scene.kind != "pair" or not judge(prompt, picture):
            return picture
        first, second = sorted(picture, key=lambda reading: reading.digit != prompt.scene.digits[0].value)
        ends = sorted(((r.y, r.x) for r in picture), key=sum)
        return moved([first, second], ends)

    measured = measure(prompts, [ordered(*pair) for pair in zip(prompts, real, strict=True)])
    assert failed(measured) == {"order"}
    assert measured == ideal | {"order": pytest.approx(0.5, abs=0.1)}
    assert measured["order"] >= 0.5


def test_nothing_drawn_is_the_worst(prompts):
    assert measure(prompts, [[] for _ in prompts]) == WORST
    assert measure([], []) == WORST
    assert failed(WORST) == set(MEASURES)
    mess = [Reading(UNKNOWN, "", 16.0, 16.0)]
    assert measure(prompts, [mess] * len(prompts)) == WORST


def test_nothing_faithful_has_neither_places_nor_orders(prompts, real, ideal):
    """Its digits are still looked at."""
    mess = Reading(UNKNOWN, "", 16.0, 16.0)
    measured = measure(prompts, [[*picture, mess] for picture in real])
    assert measured == ideal | {"placement": 1.0, "order": 1.0}


def test_unfaithful_pictures_do_not_count_as_places(prompts, real, ideal):
    """As many wrong pictures again, all at one place, change nothing."""
    wrong = [[Reading(5, "white", 15.5, 15.5, real[0][0].ink)] * 4 for _ in prompts]
    measured = measure([*prompts, *prompts], [*real, *wrong])
    assert (measured["placement"], measured["order"]) == (ideal["placement"], ideal["order"])


def test_prompts_and_readings_go_in_pairs(prompts, real):
    with pytest.raises(ValueError, match="shorter"):
        measure(prompts, real[:-1])


def test_table():
    columns = {"generated": dict(zip(MEASURES, (0.5, 0.25, 0.125, 0.0), strict=True)), "real": WORST}
    head, *lines = diversity.format_table(columns).splitlines()
    assert head.split() == ["diversity", "generated", "real", "should", "be"]
    assert [line.split()[-4:] for line in lines] == [
        ["0.500", "0.000", ">=", "0.75"],
        ["0.250", "1.000", "<=", "0.15"],
        ["0.125", "1.000", "<=", "0.15"],
        ["0.000", "1.000", "<=", "0.05"],
    ]
    assert all(line.startswith(words) for line, (words, _) in zip(lines, MEASURES.values(), strict=True))
    assert len({len(line) for line in lines}) == 1
