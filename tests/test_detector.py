import itertools

import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.data.scenes import PALETTE, Digit, Scene, draw_scene, handwriting, render
from t2i_jax.evals.detector import UNKNOWN, Detector, Reading, centred_handwriting
from t2i_jax.evals.faithfulness import Prompt, format_table, make_prompts, real_scenes, score


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return make_prompts(seed=0)


@pytest.fixture(scope="module")
def real(prompts: list[Prompt]) -> np.ndarray:
    return real_scenes(prompts, 4, seed=0)


def test_real_scenes(detector: Detector, prompts: list[Prompt], real: np.ndarray) -> None:
    held_out = make_prompts(seed=0, held_out=True)
    columns = {
        "real": score(prompts, real, detector),
        "real, fine": score(prompts, real_scenes(prompts, 4, seed=1, fine=True), detector),
        "real, held out": score(held_out, real_scenes(held_out, 4, seed=2), detector),
    }
    print("\n" + format_table("", columns))
    assert all(column["overall"] >= 0.98 for column in columns.values())


@pytest.mark.parametrize("split", ["train", "validation"])  # neither of which it was fitted on
def test_classifier_on_unseen_handwriting(detector: Detector, split: str) -> None:
    ink, labels = centred_handwriting(split)
    assert np.mean(detector.classify(ink) == labels) >= 0.99


@pytest.mark.parametrize("split", ["train", "validation"])
def test_centred_handwriting_is_the_handwriting_moved_to_the_middle(split: str) -> None:
    ink, labels = centred_handwriting(split)
    raw, values = handwriting(split)
    np.testing.assert_array_equal(labels, values)
    assert ink.shape == raw.shape
    for axis in (1, 2):
        filled = (ink > 0.25).any(axis)
        margins = np.abs(filled.argmax(1) - filled[:, ::-1].argmax(1))
        assert margins.max() <= 1
    # Next to nothing is pushed out over the edge, and the rest is what it was.
    np.testing.assert_allclose(ink.sum((1, 2)), raw.sum((1, 2)), atol=1)
    assert (np.sort(ink[:20].reshape(20, -1)) == np.sort(raw[:20].reshape(20, -1))).mean() > 0.9
    assert (ink != raw).any((1, 2)).mean() > 0.1


@pytest.mark.parametrize("colour", PALETTE)
def test_ink_is_the_drawn_instance_in_the_middle_whatever_its_colour_and_place(
    detector: Detector, colour: str
) -> None:
    """To a pixel: where faint ink at the edge is taken for ground, the middle is another."""
    raw, values = handwriting("validation")
    centred = centred_handwriting("validation")[0]
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(raw), 12, replace=False)
    images = np.zeros((12, 32, 32, 3), np.uint8)
    for image, number in zip(images, chosen, strict=True):
        y, x = 8 + rng.integers(-4, 5, 2)
        image[y : y + 16, x : x + 16] = np.rint(raw[number][..., None] * np.array(PALETTE[colour]))
    for number, readings in zip(chosen, detector(images), strict=True):
        (reading,) = readings
        assert reading.digit == values[number]
        assert (reading.ink.shape, reading.ink.dtype) == ((16, 16), np.float32)
        assert 0 <= reading.ink.min() < reading.ink.max() <= 1
        strong = centred[number] > 0.4  # what is fainter may be taken for ground
        moved = [np.roll(reading.ink, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert min(np.abs(ink[strong] - centred[number][strong]).max() for ink in moved) < 0.02


def test_ink_takes_no_part_in_comparisons() -> None:
    """Readings are equal or not as numbers are, and never an array of verdicts."""
    assert Reading(3, "red", 8.0, 8.0, np.ones((16, 16), np.float32)) == Reading(3, "red", 8.0, 8.0)
    assert Reading(3, "red", 8.0, 8.0) != Reading(3, "red", 8.0, 9.0)


@pytest.mark.parametrize("colour", PALETTE)
def test_colour_place_and_dim_light(detector: Detector, colour: str) -> None:
    for seed in range(3):
        picture = render(Scene("single", (Digit(colour, 5),)), "validation", np.random.default_rng(seed))
        for light in (1.0, 0.7):
            (reading,) = detector((picture[None] * light).astype(np.uint8))[0]
            assert reading.colour == colour
            rows, columns = np.nonzero(picture.max(-1) > 40)
            assert reading.y == pytest.approx((rows.min() + rows.max()) / 2, abs=1)
            assert reading.x == pytest.approx((columns.min() + columns.max()) / 2, abs=1)


def test_blur_is_forgiven(detector: Detector, prompts: list[Prompt], real: np.ndarray) -> None:
    soft = ndimage.gaussian_filter(real.astype(np.float32), (0, 0, 0.7, 0.7, 0))
    assert score(prompts, np.rint(soft).astype(np.uint8), detector)["overall"] >= 0.95


def test_blank_pictures_hold_nothing(detector: Detector, prompts: list[Prompt], real: np.ndarray) -> None:
    assert detector(np.zeros((2, 32, 32, 3), np.uint8)) == [[], []]
    assert detector(np.zeros((0, 32, 32, 3), np.uint8)) == []
    assert set(score(prompts, np.zeros_like(real), detector).values()) == {0.0}


@pytest.mark.parametrize("grey", [False, True])
def test_noise_fails(detector: Detector, prompts: list[Prompt], real: np.ndarray, grey: bool) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*real.shape[:-1], 1 if grey else 3)).astype(np.uint8)
    assert set(score(prompts, np.broadcast_to(noise, real.shape), detector).values()) == {0.0}


def test_clutter_is_an_unknown_object(detector: Detector) -> None:
    picture = render(Scene("single", (Digit("red", 3),)), "validation", np.random.default_rng(0))
    clean = detector(picture[None])[0]
    picture[:3, :4] = 255
    cluttered = detector(picture[None])[0]
    assert [reading.digit for reading in clean] == [3]
    assert [reading.digit for reading in cluttered] == [3, UNKNOWN]
    assert [reading.ink.shape for reading in cluttered] == [(16, 16), (0, 0)]


def test_two_colours_in_one_digit_are_none(detector: Detector) -> None:
    picture = render(Scene("single", (Digit("red", 8),)), "validation", np.random.default_rng(0))
    middle = 8 + (picture.max((1, 2)) > 40).argmax()
    picture[middle:] = picture[middle:, :, ::-1]
    (reading,) = detector(picture[None])[0]
    assert reading.colour == ""


def test_colours_changed_fail(detector: Detector, prompts: list[Prompt], real: np.ndarray) -> None:
    """Red and blue channels swapped: digits and places stay, most colours do not."""
    kept = {"cyan", "green", "purple", "white", "yellow"}
    chosen = [
        index
        for index, prompt in enumerate(prompts)
        if prompt.category in ("colours", "attribution")
        and not kept & {digit.colour for digit in prompt.scene.digits}
    ]
    changed = [prompts[index] for index in chosen]
    assert {prompt.category for prompt in changed} == {"colours", "attribution"}
    assert score(changed, real[chosen], detector)["overall"] >= 0.95
    assert score(changed, real[chosen][..., ::-1], detector)["overall"] == 0


def test_swapped_colours_fail_attribution_alone(detector: Detector) -> None:
    rng, swapped, pictures = np.random.default_rng(0), [], []
    while len(swapped) < 40:
        scene = draw_scene(rng, "pair")
        first, second = scene.digits
        if first.colour == second.colour or first.value == second.value:
            continue
        pictures.append(render(scene, "validation", rng))
        other = Scene("pair", (Digit(second.colour, first.value), Digit(first.colour, second.value)))
        swapped += [Prompt(category, other, "") for category in ("two objects", "attribution")]
    images = np.repeat(np.stack(pictures), 2, axis=0)[:, None]
    scores = score(swapped, images, detector)
    assert scores["attribution"] == 0
    assert scores["two objects"] >= 0.95


def test_opposite_relations_fail_position(detector: Detector, prompts: list[Prompt], real: np.ndarray) -> None:
    """The picture of `above` shows `below` once its halves change places; `left of` likewise."""
    chosen = [index for index, prompt in enumerate(prompts) if prompt.category == "position"]
    exchanged = np.roll(real[chosen], 16, axis=2)
    for row, index in enumerate(chosen):
        if prompts[index].scene.relation in ("left of", "right of"):
            exchanged[row] = np.roll(real[index], 16, axis=2)
    wrong = score([prompts[index] for index in chosen], exchanged, detector)
    right = score([prompts[index] for index in chosen], real[chosen], detector)
    assert wrong["position"] == 0
    assert right["position"] >= 0.95


def test_same_every_time(detector: Detector, real: np.ndarray) -> None:
    """Neither a second training nor the pictures beside it change a picture's readings."""
    images = real[::30].reshape(-1, 32, 32, 3)
    readings = Detector()(images)
    assert readings == detector(images)
    assert readings[3] == detector(images[3:4])[0]
    for one, other in zip(itertools.chain(*readings), itertools.chain(*detector(images)), strict=True):
        np.testing.assert_array_equal(one.ink, other.ink)
