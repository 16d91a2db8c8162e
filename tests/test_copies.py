"""Copies: a generator that recites its training digits is told from one that writes new ones."""

import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.data.scenes import Digit, Scene, draw_scene, render
from t2i_jax.evals import copies
from t2i_jax.evals.copies import Copies
from t2i_jax.evals.detector import Detector, centred_ink


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


@pytest.mark.slow
def test_who_recites_scenes_of_the_training_set_is_flagged(measured):
    """Whole scenes, through the tokenizer and the detector, as a generator's pictures are."""
    rng, tokenizer = np.random.default_rng(0), Blurring()
    scenes = [draw_scene(rng, "pair") for _ in range(250)]
    pictures = np.stack([render(scene, "train", rng) for scene in scenes])
    readings = Detector()(np.uint8(tokenizer.detokenize(tokenizer.tokenize(pictures)) * 255))
    found = measured.measure(readings)
    assert found["generated"]["score"] > 0.5
    assert found["generated"]["interval"][0] > 0.3
    assert found["recited"]["score"] > 0.5
    low, high = found["new"]["interval"]
    assert low < 0.05
    assert high < found["generated"]["score"]
    assert found["new"]["score"] < 0.3


@pytest.mark.slow
def test_what_is_half_recited_scores_half_as_much(measured):
    recited = measured.nearest(measured.decoded(measured.training, 1)[:360])
    own = np.arange(360)
    new = measured.nearest(measured.decoded(measured.unseen, 1), own)
    both = np.concatenate([recited, new])
    whole, none, half = (measured.score(one, np.arange(len(one)))["score"] for one in (recited, new, both))
    assert half == pytest.approx((whole + none) / 2)
    assert whole - none > 0.5


def test_digits_on_either_side_by_hand(measured):
    """Unseen instances are nearest to themselves unless they do not count, training instances are never unseen."""
    own = np.arange(40)
    assert list(measured.nearest(measured.new[:40])) == list(own)
    assert not np.any(measured.nearest(measured.new[:40], own) == own)
    assert np.all(measured.nearest(measured.known[:40]) == -1)
    assert measured.score(np.full(9, -1), np.arange(9))["score"] == 1
    one_in_five = np.tile([7, -1, -1, -1, -1], 1797 // 5)
    assert measured.score(one_in_five, np.arange(len(one_in_five)))["score"] == pytest.approx(1 - 0.2 * 1437 / 360)


def test_an_interval_knows_which_instances_are_nearest(measured):
    """Where a single unseen instance is nearest to all that are new, another choice of those may say anything."""
    few, many = np.full(500, -1), np.full(500, -1)
    few[:100], many[:100] = 3, np.arange(100)
    wide, narrow = (np.ptp(measured.score(one, np.arange(500))["interval"]) for one in (few, many))
    assert wide > 4 * narrow


@pytest.mark.slow
def test_without_a_digit_only_the_others_are_measured(measured):
    assert list(measured.measure([[], []])) == ["recited", "new"]


def test_crops_are_read_as_the_detector_reads_pictures():
    rng = np.random.default_rng(1)
    picture = render(Scene("single", (Digit("green", 5),)), "validation", rng)
    (reading,) = Detector(copies=1)(picture[None])[0]
    corner = round(reading.y - 7.5), round(reading.x - 7.5)
    y, x = (min(max(at, 0), 16) for at in corner)
    ink = centred_ink(picture[None, y : y + 16, x : x + 16].astype(np.float32) / 255)[0]
    np.testing.assert_array_equal(ink, reading.ink)


def test_table():
    one = {"score": 0.5, "interval": [0.4, 0.6], "digits": 9}
    _, head, row, rest = copies.format_table({"generated": one, "recited": one, "new": one}).splitlines()
    assert head.split() == ["copies", "generated", "digits", "digits"]
    assert row.count("0.500 ±.100") == 3
    assert rest == "1 always"
