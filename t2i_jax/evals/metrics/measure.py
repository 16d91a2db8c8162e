"""Metrics of a set of pictures against a reference, each with its 95% interval."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from t2i_jax import progress
from t2i_jax.errors import UserError
from t2i_jax.evals import intervals, tables
from t2i_jax.evals.metrics import inception_score, kernel, manifold, moments
from t2i_jax.evals.metrics.features import BATCH, Extractor
from t2i_jax.evals.metrics.moments import Moments
from t2i_jax.evals.metrics.parts import Parts

METRICS = {
    "fd": "Frechet distance of features; FID with the released InceptionV3",
    "fdinf": "the same, for infinitely many pictures",
    "kid": "kernel distance of features",
    "pr": "precision, recall, density, coverage",
    "is": "Inception Score; needs InceptionV3",
    "cmmd": "kernel distance of CLIP's features; needs CLIP",
    "clip": "CLIP score: how well pictures fit their captions; needs CLIP",
}
OF_PICTURES = {"kid", "pr", "cmmd"}  # which need the features themselves, of both sets
KEPT = {*OF_PICTURES, "fdinf", "clip"}  # of the drawn ones
ALONE = {"is", "clip"}  # which look at no reference
CLIP_WEIGHT = 100  # of CLIP score, so that it is a percentage
GROUPS = 10  # of which one is left out at a time, for the interval of a distance
AT_ONCE = 640  # rows whose products are summed at a time
LEAST = {"fd": 2, "fdinf": 2, "kid": 4, "pr": 7, "is": 2, "cmmd": 2, "clip": 2}  # pictures


class Statistics(NamedTuple):
    """What is kept of a set of pictures.

    Attributes:
      groups: moments of every tenth picture, from each of the first ten on.
      features: [n, D], and [n, K] logits; None where no metric needs them.
      texts: [n, D] of the captions; None where no metric needs them.
    """

    groups: list[Moments]
    features: np.ndarray | None
    logits: np.ndarray | None
    texts: np.ndarray | None = None

    @property
    def whole(self) -> Moments:
        return sum(self.groups[1:], self.groups[0])


def check(metrics: Sequence[str], extractor: Extractor, *, count: int, reference: int | None) -> None:
    """What can be known before the minutes that features take.

    Args:
      metrics: names.
      extractor: of the features.
      count, reference: pictures of the two sets; None of statistics in a file.

    Raises:
      UserError: a metric is unknown, or cannot be had of these.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"--metrics {name} is unknown; there are {', '.join(METRICS)}")
        if name == "is" and not extractor.classes:
            raise UserError(
                f"the Inception Score needs InceptionV3, not {extractor.network}; leave is out of --metrics"
            )
        if name in ("cmmd", "clip") and extractor.encode_texts is None:
            raise UserError(f"--metrics {name} needs CLIP, not {extractor.network}; name its folder by --features")
        if reference is None and name in OF_PICTURES:
            raise UserError(f"--metrics {name} compares pictures; the reference is statistics, name a folder")
        for pictures, what in ((count, "pictures"), (reference, "reference")):
            if pictures is not None and pictures < LEAST[name] and not (name in ALONE and what == "reference"):
                raise UserError(f"{what}: {name} of {pictures} is no number; at least {LEAST[name]} are needed")
            if name in ("fd", "fdinf") and pictures is not None:
                halves = 2 if name == "fdinf" and what == "pictures" else 1  # the line begins at half of them
                moments.check_rank(
                    pictures // halves, extractor.width, what if halves == 1 else f"half of the {what}"
                )


def gather(
    extractor: Extractor,
    pictures,
    what: str,
    *,
    keep: bool,
    logits: bool = False,
    parts: Parts | None = None,
) -> Statistics:
    """One pass over pictures, with a progress bar.

    Args:
      extractor: of the features.
      pictures: uint8 [H, W, C] each, with a length; with `parts` a set of `sets.py`.
      what: they are, for the bar.
      keep: the features too: otherwise memory does not grow with the pictures.
      logits: whether those are kept.
      parts: where features are kept as they come, and those of an earlier pass are taken from.
    """
    groups, kept, classes = [Moments.none(extractor.width) for _ in range(GROUPS)], [], []
    waiting: list[np.ndarray] = []

    def add():
        rows = np.concatenate(waiting)
        for number in range(min(GROUPS, len(rows))):
            groups[number] += Moments.of(rows[number::GROUPS])
        waiting.clear()

    for found in _stream(extractor, pictures, what, parts):
        features = found[:, : extractor.width]
        waiting.append(features)
        if len(waiting) * BATCH >= AT_ONCE:  # a multiple of GROUPS: who is in which does not depend on it
            add()
        kept += [features] if keep else []
        classes += [found[:, extractor.width :]] if logits else []
    if waiting:
        add()
    return Statistics(groups, *(np.concatenate(parts) if parts else None for parts in (kept, classes)))


def _stream(extractor, pictures, what, parts):
    """Features, a batch at a time; of pictures that have none yet."""
    done, numbers = 0, itertools.count()
    for known in parts.read() if parts else ():
        done += len(known)
        next(numbers)
        yield known
    rest = pictures.after(done) if done else pictures
    bar = progress.bar(rest, what, len(pictures), unit="pictures", initial=done)
    for features in extractor.stream(iter(bar)):
        if parts:
            parts.write(next(numbers), features)
        yield features


def score(
    metrics: Sequence[str],
    extractor: Extractor,
    generated: Statistics,
    reference: Statistics | None,
    reference_moments: Moments | None,
    seed: int,
) -> dict[str, dict]:
    """Values with 95% intervals, by title.

    Args:
      metrics: names; see `check`.
      extractor: of the features.
      generated, reference: of the two sets; the second is None of a file of statistics.
      reference_moments: of the reference, from pictures or a file.
      seed: of the subsets of KID.

    Returns:
      `{title: {"value", "interval", and what else was set}}`. Intervals are over the generated pictures, or for
      recall and coverage over the reference's; the other set is held fixed.
    """
    results: dict[str, dict] = {}
    if "fd" in metrics:
        results[extractor.title] = _frechet(generated, reference_moments)
    if "fdinf" in metrics:
        found = moments.at_infinity(generated.features, moments.Frechet(reference_moments), seed)
        results[f"{extractor.title} at infinity"] = {"value": found, "interval": None, "points": moments.POINTS}
    if "kid" in metrics:
        name = "KID" if extractor.title == "FID" else f"KD-{extractor.network}"
        results[name] = _kernel(generated.features, reference.features, seed)
    if "pr" in metrics:
        for name, values in manifold.measure(generated.features, reference.features).items():
            own = {"value": float(values.mean()), "interval": intervals.of_mean(values)}
            results[name] = own | {"neighbours": manifold.NEIGHBOURS[name]}
    if "is" in metrics:
        parts = inception_score.scores(generated.logits, min(inception_score.SPLITS, len(generated.logits)))
        name = "IS" if extractor.title == "FID" else "IS, other weights"
        results[name] = {"value": float(parts.mean()), "interval": intervals.of_mean(parts)}
        results[name] |= {"deviation": float(parts.std()), "splits": len(parts)}
    if "cmmd" in metrics:
        values = kernel.gaussian(generated.features, reference.features)
        own = {"value": float(values.mean()), "interval": intervals.of_mean(values), "sigma": kernel.SIGMA}
        results[f"CMMD-{extractor.network}"] = own
    if "clip" in metrics:
        values = clip_scores(generated.features, generated.texts)
        own = {"value": float(values.mean()), "interval": intervals.of_mean(values), "weight": CLIP_WEIGHT}
        results[f"CLIP score, {extractor.network}"] = own
    return results


def clip_scores(images: Float[np.ndarray, "n D"], texts: Float[np.ndarray, "n D"]) -> Float64[np.ndarray, " n"]:
    """100 max(cos, 0) of each picture and its text (Hessel et al. 2021, eq. 1, with w = 100 where they have 2.5).

    Args:
      images, texts: features of length 1.
    """
    return CLIP_WEIGHT * np.maximum(np.sum(images.astype(np.float64) * texts, axis=1), 0)


def _frechet(generated, reference):
    distance, whole = moments.Frechet(reference), generated.whole
    value = distance(whole)
    parts = [distance(whole - group) for group in generated.groups if group.n]
    enough = min(whole.n - group.n for group in generated.groups) > len(whole.total)
    interval = intervals.jackknife(value, parts, 1 - 1 / GROUPS) if enough else None
    return {"value": value, "interval": interval, "features": len(whole.total)}


def _kernel(generated, reference, seed):
    size = min(kernel.SUBSET, len(generated) // 2, len(reference))
    found = kernel.distances(generated, reference, size=size, seed=seed)
    return {
        "value": float(found.mean()),
        "interval": intervals.jackknife(float(found.mean()), found, size / len(generated)),
        "deviation": float(found.std()),
        "subsets": kernel.SUBSETS,
        "subset": size,
    }


def format_results(results: dict[str, dict]) -> str:
    """A plain table: a row a metric."""

    def shown(value):
        digits = 3 if abs(value) >= 0.1 or value == 0 else 2 - math.floor(math.log10(abs(value)))
        return f"{value:.{digits}f}"

    rows = {
        name: [
            shown(own["value"]),
            " to ".join(map(shown, own["interval"])) if own["interval"] else "-",
        ]
        for name, own in results.items()
    }
    return tables.format_table("metric", ["value", "95% interval"], rows)
