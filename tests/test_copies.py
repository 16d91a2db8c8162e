"""Copies: a generator that recites its training digits is told from one that writes new ones."""

import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.data.scenes import Digit, Scene, draw_scene, handwriting, render
from t2i_jax.evals import copies
from t2i_jax.evals.copies import Copies
from t2i_jax.evals.detector import Detector, Reading, centred_ink


class Blurring:
    """A tokenizer that loses detail, and more at some places than at others."""

    def tokenize(self, images):
        return images

    def detokenize(self, images):
        soft = ndimage.uniform_filter(np.float32(images / 255), (1, 2, 2, 1))
        return np.round(soft * 8) / 8


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "PLACES", 2)
        patch.setattr(copies, "TIMES", 1)
        yield Copies(Blurring())


def read_of(digits):
    return [[Reading(0, "red", 8.0, 8.0, ink)] for ink in digits]


def test_who_recites_scenes_of_the_training_set_is_flagged(measured):
    """Whole scenes, through the tokenizer and the detector, as a generator's pictures are."""
    rng, tokenizer = np.random.default_rng(0), Blurring()
    scenes = [draw_scene(rng, "pair") for _ in range(150)]
    pictures = np.stack([render(scene, "train", rng) for scene in scenes])
    readings = Detector()(np.uint8(tokenizer.detokenize(tokenizer.tokenize(pictures)) * 255))
    found = measured.measure(readings)
    assert found["generated"]["score"] > 0.6
    assert found["generated"]["interval"][0] > 0.4
    assert found["recited"]["score"] > 0.6
    assert found["new"]["score"] < 0.3
    low, high = found["new"]["interval"]
    assert low < 0.05
    assert high < found["generated"]["interval"][0]


def test_what_is_half_recited_scores_half_as_much(measured):
    recited, new = measured.decoded(measured.training)[:180], measured.decoded(measured.halves[1])
    whole, none, half = (measured.scores(inks, 0).mean() for inks in (recited, new, np.concatenate([recited, new])))
    assert half == pytest.approx((whole + none) / 2)
    assert whole - none > 0.6


def test_digits_on_either_side_by_hand(measured):
    """The compared digits themselves have a new digit as nearest, the training ones a training digit."""
    same = measured._new[0][:40]
    by_chance = 1437 / (1437 + 180)
    assert np.all(measured.scores(same, 0) == pytest.approx(-by_chance / (1 - by_chance)))
    assert np.all(measured.scores(measured._known[:40], 0) == pytest.approx(1))


def test_without_a_digit_only_the_others_are_measured(measured):
    assert list(measured.measure([[], []])) == ["recited", "new"]


def test_crops_are_read_as_the_detector_reads_pictures():
    rng = np.random.default_rng(1)
    picture = render(Scene("single", (Digit("green", 5),)), "validation", rng)
    (reading,) = Detector(copies=1)(picture[None])[0]
    corner = round(reading.y - 7.5), round(reading.x - 7.5)
    y, x = (min(max(at, 0), 16) for at in corner)
    ink = centred_ink(picture[None, y : y + 16, x : x + 16].astype(np.float32) / 255)[0]
    best = np.abs(handwriting("validation")[0] - ink).mean((1, 2)).min()
    assert best < 0.08 or np.abs(ink - reading.ink).max() < 0.02


def test_table():
    one = {"score": 0.5, "interval": [0.4, 0.6], "digits": 9}
    head, row = copies.format_table({"generated": one, "recited": one, "new": one}).splitlines()
    assert head.split("  ")[0] == "copies"
    assert row.count("0.500 ±.100") == 3
