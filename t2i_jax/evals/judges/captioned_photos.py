"""Crops of photographs: whether the nearest photograph by pixels is the one that the caption names."""

from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, random_crops
from t2i_jax.evals import photographs
from t2i_jax.evals.pictures import beside, sample


def rater(pipe, seed: int):
    """See `judges`."""
    prompts = [words for words in PHOTOGRAPHS for _ in range(photographs.PICTURES)]

    def rate(sampler):
        images = sample(pipe, prompts, seed, sampler=sampler)
        right = photographs.right(images.reshape(len(PHOTOGRAPHS), photographs.PICTURES, *images.shape[1:]))
        return photographs.shares(right)["overall"], photographs.intervals_of(right)["overall"]

    return rate


def judge(pipe, seed: int, candidates: int) -> tuple[str, dict]:
    """The fraction of right pictures by caption, as text and numbers; arguments as in `captioned_digits.judge`."""
    prompts = [words for words in PHOTOGRAPHS for _ in range(photographs.PICTURES)]
    real = random_crops(photographs.PICTURES, seed)
    right = {
        kind: photographs.right(images) for kind, images in beside(pipe, prompts, real, seed, candidates).items()
    }
    columns = {kind: photographs.shares(own) for kind, own in right.items()}
    ends = {kind: photographs.intervals_of(own) for kind, own in right.items()}
    table = photographs.format_table(columns, ends)
    results = {"nearest_photograph": columns, "intervals": {"nearest_photograph": ends}}
    return table, {"pictures": len(prompts), **results}
