import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.data.scenes import PALETTE, Digit, Scene, draw_scene, handwriting, render
from t2i_jax.evals.detector import UNKNOWN, Detector, _centre
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
    print("\n" + format_table(columns))
    assert all(column["overall"] >= 0.98 for column in columns.values())


def test_classifier_on_unseen_handwriting(detector: Detector) -> None:
    ink, labels = handwriting("validation")
    assert np.mean(detector.classify(_centre(ink)[0]) == labels) >= 0.99


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
