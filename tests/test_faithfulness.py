import numpy as np
import pytest

from t2i_jax.data.scenes import HELD_OUT, Digit, Scene, caption
from t2i_jax.errors import UserError
from t2i_jax.evals.detector import UNKNOWN, Reading
from t2i_jax.evals.faithfulness import (
    CATEGORIES,
    Prompt,
    format_table,
    judge,
    make_prompts,
    real_scenes,
    relation_of,
    score,
)

SINGLE = Scene("single", (Digit("red", 3),))
PAIR = Scene("pair", (Digit("red", 3), Digit("blue", 7)))
TWINS = Scene("pair", (Digit("red", 3), Digit("blue", 3)))
THREE = Scene("count", (Digit("red", 3),) * 3)
LEFT, RIGHT, ABOVE, BELOW = (
    Scene("relation", PAIR.digits, relation) for relation in ("left of", "right of", "above", "below")
)
RED_3, BLUE_3, BLUE_7, RED_7 = (
    Reading(digit, colour, 16.0, x)
    for digit, colour, x in ((3, "red", 8.0), (3, "blue", 8.0), (7, "blue", 24.0), (7, "red", 24.0))
)
MESS = Reading(UNKNOWN, "", 16.0, 16.0)


def at(reading: Reading, y: float, x: float) -> Reading:
    return Reading(reading.digit, reading.colour, float(y), float(x))


@pytest.mark.parametrize(
    ("category", "scene", "readings", "verdict"),
    [
        ("single object", SINGLE, [RED_3], True),
        ("single object", SINGLE, [BLUE_3], True),
        ("single object", SINGLE, [RED_7], False),
        ("single object", SINGLE, [], False),
        ("single object", SINGLE, [RED_3, RED_3], False),
        ("single object", SINGLE, [RED_3, MESS], False),
        ("single object", SINGLE, [MESS], False),
        ("colours", SINGLE, [RED_3], True),
        ("colours", SINGLE, [BLUE_3], False),
        ("colours", SINGLE, [Reading(3, "", 16.0, 16.0)], False),
        ("colours", SINGLE, [RED_7], False),
        ("two objects", PAIR, [BLUE_7, RED_3], True),
        ("two objects", PAIR, [RED_7, BLUE_3], True),
        ("two objects", PAIR, [RED_3, RED_3], False),
        ("two objects", PAIR, [RED_3], False),
        ("two objects", PAIR, [RED_3, BLUE_7, BLUE_7], False),
        ("two objects", PAIR, [RED_3, BLUE_7, MESS], False),
        ("two objects", TWINS, [RED_3, RED_3], True),
        ("two objects", TWINS, [RED_3, RED_7], False),
        ("attribution", PAIR, [BLUE_7, RED_3], True),
        ("attribution", PAIR, [RED_7, BLUE_3], False),
        ("attribution", PAIR, [RED_3, RED_7], False),
        ("attribution", TWINS, [BLUE_3, RED_3], True),
        ("attribution", TWINS, [RED_3, RED_3], False),
        ("counting", THREE, [RED_3] * 3, True),
        ("counting", THREE, [RED_3, BLUE_3, RED_3], True),
        ("counting", THREE, [RED_3] * 2, False),
        ("counting", THREE, [RED_3] * 4, False),
        ("counting", THREE, [RED_3, RED_3, RED_7], False),
        ("counting", THREE, [RED_3, RED_3, MESS], False),
        ("position", LEFT, [at(RED_3, 16, 8), at(BLUE_7, 12, 24)], True),
        ("position", LEFT, [at(BLUE_7, 12, 24), at(RED_3, 16, 8)], True),
        ("position", LEFT, [at(RED_3, 16, 24), at(BLUE_7, 16, 8)], False),
        ("position", LEFT, [at(RED_3, 4, 12), at(BLUE_7, 28, 20)], False),
        ("position", LEFT, [at(RED_3, 8, 8), at(BLUE_7, 24, 24)], False),
        ("position", LEFT, [at(RED_3, 16, 8), at(BLUE_3, 16, 24)], False),
        ("position", LEFT, [at(RED_3, 16, 8)], False),
        ("position", LEFT, [at(RED_3, 16, 8), at(BLUE_7, 16, 24), MESS], False),
        ("position", RIGHT, [at(RED_3, 16, 24), at(BLUE_7, 16, 8)], True),
        ("position", RIGHT, [at(RED_3, 16, 8), at(BLUE_7, 16, 24)], False),
        ("position", ABOVE, [at(RED_3, 8, 12), at(BLUE_7, 24, 20)], True),
        ("position", ABOVE, [at(RED_3, 24, 12), at(BLUE_7, 8, 20)], False),
        ("position", ABOVE, [at(RED_3, 12, 4), at(BLUE_7, 20, 28)], False),
        ("position", BELOW, [at(BLUE_7, 8, 16), at(RED_3, 24, 16)], True),
        ("position", BELOW, [at(BLUE_7, 24, 16), at(RED_3, 8, 16)], False),
    ],
)
def test_verdicts(category: str, scene: Scene, readings: list[Reading], verdict: bool) -> None:
    assert judge(Prompt(category, scene, caption(scene)), readings) is verdict


@pytest.mark.parametrize(
    ("y", "x", "relation"),
    [
        (16, 8, "left of"),
        (16, 24, "right of"),
        (8, 16, "above"),
        (24, 16, "below"),
        (12, 8, "left of"),
        (9, 24, "right of"),
        (4, 10, "above"),
        (24, 23.5, "below"),
        (8, 8, ""),
        (24, 8, ""),
        (16, 16, ""),
    ],
)
def test_relation_of_a_reading_to_one_in_the_middle(y: float, x: float, relation: str) -> None:
    opposite = {"": "", "left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    here, middle = at(RED_3, y, x), at(BLUE_7, 16, 16)
    assert relation_of(here, middle) == relation
    assert relation_of(middle, here) == opposite[relation]


def test_prompts() -> None:
    prompts = make_prompts(seed=0)
    assert [prompt.category for prompt in prompts] == [name for name in CATEGORIES for _ in range(50)]
    for category, kind in CATEGORIES.items():
        own = [prompt for prompt in prompts if prompt.category == category]
        assert len({prompt.caption for prompt in own}) == 50
        assert {prompt.scene.kind for prompt in own} == {kind}
        assert all(prompt.caption == caption(prompt.scene) for prompt in own)
    for prompt in prompts:
        assert not any((digit.colour, digit.value) in HELD_OUT for digit in prompt.scene.digits)
        if prompt.category == "position":
            assert prompt.scene.digits[0].value != prompt.scene.digits[1].value
    assert prompts == make_prompts(seed=0)
    assert prompts != make_prompts(seed=1)


def test_held_out_prompts_repeat_in_turn() -> None:
    prompts = make_prompts(seed=0, held_out=True)
    assert len(prompts) == 300
    captions = [prompt.caption for prompt in prompts if prompt.category == "colours"]
    assert len(set(captions)) == 4
    assert captions[:4] == captions[4:8]
    assert len({prompt.caption for prompt in prompts if prompt.category == "counting"}) == 12
    assert len({prompt.caption for prompt in prompts if prompt.category == "attribution"}) == 50
    for prompt in prompts:
        assert any((digit.colour, digit.value) in HELD_OUT for digit in prompt.scene.digits)


def test_excluded_captions_are_not_used() -> None:
    shown = {prompt.caption for prompt in make_prompts(seed=0, per_category=10)}
    again = make_prompts(seed=0, per_category=10, exclude=shown)
    assert not shown & {prompt.caption for prompt in again}
    assert len(again) == 60


def test_excluding_everything_is_refused() -> None:
    every = ["a red zero", "a yellow seven", "a purple four", "an orange one"]
    with pytest.raises(UserError, match="no caption is left for 'single object'"):
        make_prompts(seed=0, held_out=True, exclude=every)


def test_score_counts_pictures_and_averages_categories() -> None:
    """Two prompts of one category, two pictures each, one of another: 3/4 and 0, so 3/8 overall."""
    prompts = [Prompt("colours", SINGLE, ""), Prompt("colours", SINGLE, ""), Prompt("two objects", PAIR, "")]
    read = [[RED_3], [RED_3], [BLUE_3], [RED_3], [RED_3], []]
    scores = score(prompts, np.zeros((3, 2, 32, 32, 3), np.uint8), lambda images: read[: len(images)])
    assert scores == {"two objects": 0.0, "colours": 0.75, "overall": 0.375}
    with pytest.raises(ValueError, match="3 prompts, but pictures for 2"):
        score(prompts, np.zeros((2, 2, 32, 32, 3), np.uint8), lambda images: read)


def test_real_scenes_are_seeded() -> None:
    prompts = make_prompts(seed=0, per_category=2)
    pictures = real_scenes(prompts, 3, seed=0)
    assert pictures.shape == (12, 3, 32, 32, 3)
    np.testing.assert_array_equal(pictures, real_scenes(prompts, 3, seed=0))
    assert (pictures != real_scenes(prompts, 3, seed=1)).any()
    assert (pictures[:, 0] != pictures[:, 1]).any((1, 2, 3)).all()


def test_table() -> None:
    scores = dict.fromkeys(CATEGORIES, 0.5) | {"overall": 0.5}
    lines = format_table("", {"generated": scores, "real": {"counting": 1.0, "overall": 1.0}}).splitlines()
    assert lines[0].split() == ["generated", "real"]
    assert [line.rsplit(maxsplit=2) for line in lines if line.startswith(("counting", "overall"))] == [
        ["counting", "0.500", "1.000"],
        ["overall", "0.500", "1.000"],
    ]
    assert [line.split()[-1] for line in lines if line.startswith("position")] == ["-"]
    assert len({len(line) for line in lines}) == 1
