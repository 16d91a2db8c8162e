"""Does the picture show what the caption says? GenEval's six categories (Ghosh et al., 2023) on digit scenes.

Every verdict is strict about number: one object too many or too few, known or unknown, and the picture fails.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from t2i_jax.data.scenes import CANVAS, Scene, caption, draw_scene, render
from t2i_jax.errors import UserError
from t2i_jax.evals import intervals, tables
from t2i_jax.evals.detector import Reading

CATEGORIES = {
    "single object": "single",
    "two objects": "pair",
    "counting": "count",
    "colours": "single",
    "position": "relation",
    "attribution": "pair",
}
"""The kind of scene that each category asks for."""
_PATIENCE = 500  # scenes drawn without meeting a new caption before captions are taken to be exhausted


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A caption, the scene it describes and the category (a key of CATEGORIES) it is judged by."""

    category: str
    scene: Scene
    caption: str


def make_prompts(
    seed: int, per_category: int = 50, held_out: bool = False, exclude: Collection[str] = ()
) -> list[Prompt]:
    """Draws prompts, `per_category` for each category, in the order of CATEGORIES.

    Captions are distinct within a category as long as there are enough (held out, there are 4 of one object
    and 12 of counting); beyond that they repeat in turn. Digits of a position prompt differ in value, since
    its verdict tells them apart by value alone.

    Args:
        seed: of the draw.
        held_out: every scene contains a digit of `scenes.HELD_OUT`, otherwise none does.
        exclude: captions not to use, such as those whose pictures were shown during training.

    Raises:
        UserError: `exclude` leaves a category without captions.
    """
    prompts = []
    for number, (category, kind) in enumerate(CATEGORIES.items()):
        rng = np.random.default_rng([seed, number, held_out])
        distinct: dict[str, Scene] = {}
        misses = 0
        while len(distinct) < per_category and misses < _PATIENCE:
            scene = draw_scene(rng, kind, held_out)
            words = caption(scene)
            same_values = kind == "relation" and scene.digits[0].value == scene.digits[1].value
            if same_values or words in exclude or words in distinct:
                misses += 1
            else:
                distinct[words], misses = scene, 0
        if per_category and not distinct:
            raise UserError(
                f"no caption is left for {category!r}: all of them are among the {len(exclude)} excluded; "
                "exclude fewer"
            )
        pool = [Prompt(category, scene, words) for words, scene in distinct.items()]
        prompts += [pool[index % len(pool)] for index in range(per_category)]
    return prompts


def judge(prompt: Prompt, readings: Sequence[Reading]) -> bool:
    """Whether the objects read are exactly those asked for, as far as the prompt's category looks.

    single object, counting: number and digits. colours: also the colour. two objects: the two digits.
    attribution: each digit with its colour. position: the two digits, and the first stands where it should,
    the distance along that axis being the greater one.
    """
    wanted = prompt.scene.digits
    if len(readings) != len(wanted):
        return False
    if sorted(reading.digit for reading in readings) != sorted(digit.value for digit in wanted):
        return False
    if prompt.category in ("colours", "attribution"):
        return sorted((reading.digit, reading.colour) for reading in readings) == sorted(
            (digit.value, digit.colour) for digit in wanted
        )
    if prompt.category == "position":
        first, second = sorted(readings, key=lambda reading: reading.digit != wanted[0].value)
        return relation_of(first, second) == prompt.scene.relation
    return True


def relation_of(first: Reading, second: Reading) -> str:
    """Where the first stands, seen from the second; "" on the diagonal."""
    down, right = first.y - second.y, first.x - second.x
    if abs(down) == abs(right):
        return ""
    if abs(right) > abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def verdicts(
    prompts: Sequence[Prompt],
    images: UInt8[np.ndarray, "P n 32 32 3"],
    detector: Callable[[np.ndarray], list[list[Reading]]],
) -> Bool[np.ndarray, "P n"]:
    """Whether each picture is faithful to its prompt.

    Args:
        prompts: P prompts.
        images: n pictures for each, RGB, 0 to 255.
        detector: a `Detector`, or whatever reads [B, 32, 32, 3] as it does.

    Raises:
        ValueError: not as many rows of pictures as prompts.
    """
    if len(prompts) != len(images):
        raise ValueError(f"{len(prompts)} prompts, but pictures for {len(images)}")
    readings = detector(images.reshape(-1, *images.shape[2:]))
    asked = [prompt for prompt in prompts for _ in range(images.shape[1])]
    right = [judge(*pair) for pair in zip(asked, readings, strict=True)]
    return np.array(right, bool).reshape(images.shape[:2])


def shares(
    prompts: Sequence[Prompt], right: Bool[np.ndarray, "P n"], weights: Int[np.ndarray, " P"] | None = None
) -> dict[str, float]:
    """The share of faithful pictures in each category, and "overall", the categories' unweighted mean.

    Args:
        prompts: P prompts.
        right: see `verdicts`.
        weights: how many times each prompt counts; once by default.
    """
    weights = np.ones(len(prompts)) if weights is None else weights
    of_prompts, categories = right.mean(1), np.array([prompt.category for prompt in prompts])
    scores = {
        name: float(np.average(of_prompts[own], weights=weights[own]))
        for name in CATEGORIES
        if (own := categories == name).any()
    }
    return scores | {"overall": float(np.mean(list(scores.values())))}


def score(prompts: Sequence[Prompt], images: np.ndarray, detector: Callable) -> dict[str, float]:
    """The `shares` of the `verdicts`."""
    return shares(prompts, verdicts(prompts, images, detector))


def intervals_of(prompts: Sequence[Prompt], right: Bool[np.ndarray, "P n"]) -> dict[str, intervals.Interval]:
    """95% intervals of `shares`: other prompts of each category, with the pictures drawn for them."""
    return intervals.bootstrap(
        lambda weights: shares(prompts, right, weights), [prompt.category for prompt in prompts]
    )


def real_scenes(
    prompts: Sequence[Prompt], n: int, seed: int, fine: bool = False, split: str = "validation"
) -> UInt8[np.ndarray, "P n 32 32 3"]:
    """Draws every prompt's scene n times, with handwriting that no model has seen unless `split` is "train".

    A prompt's pictures depend on the seed and its place in the list. `fine` is as in `scenes.render`.
    """
    pictures = np.zeros((len(prompts), n, CANVAS, CANVAS, 3), np.uint8)
    for index, prompt in enumerate(prompts):
        rng = np.random.default_rng([seed, index])
        for number in range(n):
            pictures[index, number] = render(prompt.scene, split, rng, fine)
    return pictures


def format_table(
    title: str,
    columns: dict[str, dict[str, float]],
    of_columns: dict[str, dict[str, intervals.Interval]] | None = None,
) -> str:
    """A plain table: one row for each category and for overall, one column a name; "-" where unscored.

    Args:
        title: over the names of the rows.
        columns: see `score`.
        of_columns: see `intervals_of`; half their widths stand behind the scores.
    """
    rows = (*CATEGORIES, "overall")
    return tables.format_shares(title, columns, of_columns or {}, rows, rules=(0, len(CATEGORIES)))
