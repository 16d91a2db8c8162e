import numpy as np
import pytest
from sklearn.datasets import load_digits

from t2i_jax.data.scenes import (
    HELD_OUT,
    JITTER,
    MIXTURE,
    PALETTE,
    Digit,
    Scene,
    caption,
    draw_scene,
    handwriting,
    render,
)

RED_THREE, BLUE_SEVEN, ORANGE_ONE = Digit("red", 3), Digit("blue", 7), Digit("orange", 1)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Scene("single", (Digit("red", 7),)), "a red seven"),
        (Scene("single", (ORANGE_ONE,)), "an orange one"),
        (Scene("pair", (RED_THREE, BLUE_SEVEN)), "a red three and a blue seven"),
        (Scene("relation", (RED_THREE, BLUE_SEVEN), "left of"), "a red three left of a blue seven"),
        (Scene("relation", (RED_THREE, ORANGE_ONE), "right of"), "a red three right of an orange one"),
        (Scene("relation", (ORANGE_ONE, BLUE_SEVEN), "above"), "an orange one above a blue seven"),
        (Scene("relation", (RED_THREE, BLUE_SEVEN), "below"), "a red three below a blue seven"),
        (Scene("count", (Digit("yellow", 7),) * 3), "three yellow sevens"),
        (Scene("count", (Digit("cyan", 6),) * 2), "two cyan sixes"),
        (Scene("count", (Digit("white", 0),) * 4), "four white zeros"),
    ],
)
def test_caption(scene: Scene, words: str) -> None:
    assert caption(scene) == words


def held_out_digits(scene: Scene) -> int:
    return sum((digit.colour, digit.value) in HELD_OUT for digit in scene.digits)


def test_training_scenes_hold_nothing_held_out_and_cover_the_rest() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(6000)]
    assert not any(held_out_digits(scene) for scene in scenes)
    seen = {(digit.colour, digit.value) for scene in scenes for digit in scene.digits}
    assert seen == {(colour, value) for colour in PALETTE for value in range(10)} - HELD_OUT
    for kind, share in MIXTURE.items():
        assert np.mean([scene.kind == kind for scene in scenes]) == pytest.approx(share, abs=0.03)
    assert {len(scene.digits) for scene in scenes if scene.kind == "count"} == {2, 3, 4}


@pytest.mark.parametrize("kind", MIXTURE)
def test_held_out_scenes_always_hold_one(kind: str) -> None:
    rng = np.random.default_rng(1)
    scenes = [draw_scene(rng, kind, held_out=True) for _ in range(300)]
    assert all(scene.kind == kind and held_out_digits(scene) > 0 for scene in scenes)
    if kind == "count":
        assert all(held_out_digits(scene) == len(scene.digits) for scene in scenes)


def test_two_digits_are_never_the_same_twice() -> None:
    rng = np.random.default_rng(2)
    for kind in ("pair", "relation"):
        for _ in range(3000):
            first, second = draw_scene(rng, kind).digits
            assert first != second


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'triple'; there are single, pair"):
        draw_scene(np.random.default_rng(0), "triple")
    with pytest.raises(ValueError, match="'test'; there are validation, judge, train"):
        handwriting("test")


def test_handwriting_is_split_by_instance() -> None:
    parts = {split: handwriting(split) for split in ("train", "validation", "judge")}
    assert {split: len(ink) for split, (ink, _) in parts.items()} == {
        "train": 1077,
        "validation": 360,
        "judge": 360,
    }
    for ink, labels in parts.values():
        assert ink.dtype == np.float32
        assert (ink.min(), ink.max()) == (0, 1)
        assert len(labels) == len(ink)
        assert np.bincount(labels).min() >= 34
    pictures = [{picture.tobytes() for picture in ink} for ink, _ in parts.values()]
    assert (
        sum(map(len, pictures))
        == len(set.union(*pictures))
        == len({scan.tobytes() for scan in load_digits().images})
    )


@pytest.mark.parametrize(("fine", "shifts"), [(False, {-4, 0, 4}), (True, set(range(-4, 5)))])
def test_single_jitter(fine: bool, shifts: set[int]) -> None:
    """A zero fills its cell's full height, so the first row of ink gives the jitter away."""
    rng, scene = np.random.default_rng(0), Scene("single", (Digit("white", 0),))
    tops = [np.argmax(render(scene, "train", rng, fine).max((1, 2)) > 8) - 8 for _ in range(300)]
    assert set(tops) == shifts
    assert max(shifts) == JITTER


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below", ""])
def test_two_digits_fill_their_halves(relation: str, fine: bool) -> None:
    rng = np.random.default_rng(0)
    scene = Scene("relation" if relation else "pair", (RED_THREE, BLUE_SEVEN), relation)
    seen = set()
    for _ in range(60):
        picture = render(scene, "validation", rng, fine)
        red = picture[..., 0].astype(int) > picture[..., 2]
        blue = picture[..., 2].astype(int) > picture[..., 0]
        red_y, red_x = (axis.mean() for axis in np.nonzero(red))
        blue_y, blue_x = (axis.mean() for axis in np.nonzero(blue))
        if abs(red_x - blue_x) > abs(red_y - blue_y):
            seen.add("left of" if red_x < blue_x else "right of")
            first, second = (red, blue) if red_x < blue_x else (blue, red)
            assert not first[:, 16:].any()
            assert not second[:, :16].any()
            assert not picture[:4].any()
            assert not picture[28:].any()
        else:
            seen.add("above" if red_y < blue_y else "below")
            first, second = (red, blue) if red_y < blue_y else (blue, red)
            assert not first[16:].any()
            assert not second[:16].any()
            assert not picture[:, :4].any()
            assert not picture[:, 28:].any()
    assert seen == ({relation} if relation else {"left of", "right of", "above", "below"})


@pytest.mark.parametrize("count", [2, 3, 4])
def test_counted_digits_fill_quadrants(count: int) -> None:
    rng, scene = np.random.default_rng(0), Scene("count", (Digit("green", 8),) * count)
    used = set()
    for _ in range(60):
        picture = render(scene, "train", rng)
        quadrants = picture.reshape(2, 16, 2, 16, 3).any((1, 3, 4))
        assert quadrants.sum() == count
        used |= set(zip(*np.nonzero(quadrants), strict=True))
    assert len(used) == 4


@pytest.mark.parametrize("colour", PALETTE)
def test_tint(colour: str) -> None:
    picture = render(Scene("single", (Digit(colour, 8),)), "train", np.random.default_rng(0))
    brightest = picture.reshape(-1, 3)[picture.sum(-1).argmax()]
    assert np.abs(brightest.astype(int) - PALETTE[colour]).max() <= 12
    assert (picture == 0).all(-1).mean() > 0.7


def test_same_seed_same_picture() -> None:
    pictures = [
        render(draw_scene(rng), "train", rng) for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    np.testing.assert_array_equal(*pictures)
    other = np.random.default_rng(6)
    assert (render(draw_scene(other), "train", other) != pictures[0]).any()
