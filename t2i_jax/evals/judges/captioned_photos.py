"""Crops of photographs: whether the nearest photograph by pixels is the one that the caption names."""

from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, random_crops
from t2i_jax.evals import photographs
from t2i_jax.evals.pictures import beside


def judge(pipe, seed: int, candidates: int) -> tuple[str, dict]:
    """The fraction of right pictures by caption, as text and numbers; arguments as in `captioned_digits.judge`."""
    prompts = [words for words in PHOTOGRAPHS for _ in range(photographs.PICTURES)]
    real = random_crops(photographs.PICTURES, seed)
    pictures = beside(pipe, prompts, real, seed, candidates)
    columns = {kind: photographs.score(images) for kind, images in pictures.items()}
    return photographs.format_table(columns), {"nearest_photograph": columns}
