"""Diversity: real pictures that pass, and sameness of every kind that does not."""

import dataclasses

import numpy as np
import pytest
from readings import MIDDLE, moved

from t2i_jax.evals import diversity
from t2i_jax.evals.detector import UNKNOWN, Detector, Reading, centred_handwriting
from t2i_jax.evals.diversity import MEASURES, measure
from t2i_jax.evals.faithfulness import judge, real_scenes

WORST = {"spread": 0.0, "placement": 1.0, "order": 1.0}


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
def real(prompts, detector):
    """What is read in real pictures, one a prompt."""
    return detector(real_scenes(prompts, 1, seed=0)[:, 0])


@pytest.fixture(scope="module")
def ideal(prompts, real):
    return measure(prompts, real)


def changed(readings, change):
    """Readings with fields that `change(reading)` says."""
    return [[dataclasses.replace(reading, **change(reading)) for reading in picture] for picture in readings]


@pytest.mark.slow
def test_real_pictures_are_as_they_should_be(ideal):
    assert failed(ideal) == set()
    assert ideal["spread"] > 0.8


@pytest.mark.slow
def test_fine_pictures_are_as_they_should_be_and_not_as_coarse_ones(prompts, detector):
    readings = detector(real_scenes(prompts, 1, seed=0, fine=True)[:, 0])
    assert not failed(measure(prompts, readings, fine=True))
    assert measure(prompts, readings)["placement"] > 0.25


def test_one_instance_of_each_digit_has_no_spread(prompts, real, ideal):
    for split in ("train", "validation"):
        ink, values = centred_handwriting(split)
        first = {value: ink[np.flatnonzero(values == value)[5]] for value in range(10)}
        measured = measure(prompts, changed(real, lambda reading, first=first: {"ink": first[reading.digit]}))
        assert failed(measured) == {"spread"}
        assert measured["spread"] == pytest.approx(0, abs=1e-6)
        assert ideal | {"spread": measured["spread"]} == measured


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


@pytest.mark.slow
def test_unfaithful_pictures_do_not_count_as_places(prompts, real, ideal):
    """As many wrong pictures again, all at one place, change nothing."""
    wrong = [[Reading(5, "white", 15.5, 15.5, real[0][0].ink)] * 4 for _ in prompts]
    measured = measure([*prompts, *prompts], [*real, *wrong])
    assert (measured["placement"], measured["order"]) == (ideal["placement"], ideal["order"])


def test_prompts_and_readings_go_in_pairs(prompts, real):
    with pytest.raises(ValueError, match="shorter"):
        measure(prompts, real[:-1])


def test_table():
    columns = {"generated": dict(zip(MEASURES, (0.5, 0.25, 0.125), strict=True)), "real": WORST}
    _, head, first, rest, *others = diversity.format_table(columns).splitlines()
    assert head.split() == ["diversity", "generated", "real", "be"]
    lines = [first, *others]
    assert [line.split()[-4:] for line in lines] == [
        ["0.500", "0.000", ">=", "0.75"],
        ["0.250", "1.000", "<=", "0.15"],
        ["0.125", "1.000", "<=", "0.15"],
    ]
    names = [name for name, _ in MEASURES.values()]
    assert f"{first[:48].rstrip()} {rest}" == names[0]
    assert all(line.startswith(name) for line, name in zip(others, names[1:], strict=True))
    assert len({len(line) for line in lines}) == 1


def test_intervals_contain_the_scores_and_are_those_of_so_many_prompts(prompts, real, ideal):
    found = diversity.Diversity(prompts, real).intervals()
    assert list(found) == list(MEASURES)
    for name, (low, high) in found.items():
        assert low < high
        assert high - low < 0.2
        assert low - 0.06 < ideal[name] < high + 0.06  # total variation of a resample is never less than its noise
    assert "±" in diversity.format_table({"real": ideal}, {"real": found})
