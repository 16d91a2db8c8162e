"""A comparison of two sets of pictures, as a table and as a card that says all of what made its numbers."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from t2i_jax.errors import UserError
from t2i_jax.evals.metrics import measure, moments
from t2i_jax.evals.metrics.features import Extractor
from t2i_jax.evals.metrics.parts import Parts

STATISTICS = ".npz"


def compare(
    metrics: Sequence[str],
    extractor: Extractor,
    pictures,
    reference,
    *,
    seed: int = 0,
    save: str | Path | None = None,
    parts: str | Path | None = None,
) -> tuple[str, dict]:
    """Metrics of pictures against a reference.

    Args:
      metrics: names in `measure.METRICS`.
      extractor: of the features.
      pictures: a set of `sets.py`.
      reference: another, or the path of statistics that `Moments.save` or pytorch-fid wrote. None where the metrics
        look at none.
      seed: of the subsets of KID.
      save: where statistics of the reference go, to be compared with again.
      parts: folder in which features are kept as they come; what an earlier call with the same pictures left
        there is not computed again. Whoever has written the results removes it.

    Returns:
      The table, and the card: `metrics` with intervals, `pictures`, `reference`, `features`, `seed`, `versions`.

    Raises:
      UserError: a metric cannot be had of these pictures; a picture or the statistics cannot be read, or those are
        of other features.
    """
    is_file = isinstance(reference, str | Path)
    alone = measure.ALONE.issuperset(metrics)
    measure.check(metrics, extractor, count=len(pictures), reference=None if is_file or alone else len(reference))
    texts = extractor.encode_texts(pictures.captions) if "clip" in metrics else None  # before minutes of drawing
    keep = not measure.KEPT.isdisjoint(metrics)

    def gather(own, what, **options):
        stamp = {"pictures": own.about, "features": extractor.about, "versions": _versions()}
        kept = Parts(Path(parts) / what, stamp) if parts else None
        return measure.gather(extractor, own, what, keep=keep, parts=kept, **options)

    if alone:
        known, about, real = None, {}, None
    elif is_file:
        known, about, real = *_read(reference, extractor), None
    else:
        real = gather(reference, "reference")
        known, about = real.whole, reference.about
    if save and known:
        known.save(save, _name(extractor))
    generated = gather(pictures, "pictures", logits="is" in metrics)._replace(texts=texts)
    results = measure.score(metrics, extractor, generated, real, known, seed)
    card = {
        "metrics": results,
        "pictures": pictures.about,
        "reference": about,
        "features": extractor.about,
        "seed": seed,
        "versions": _versions(),
    }
    return measure.format_results(results), card


def _read(path, extractor: Extractor):
    """Statistics of a file, and what the card says of them."""
    known, about = moments.load(path)
    if len(known.total) != extractor.width or about not in ("", _name(extractor)):
        raise UserError(
            f"{path} has statistics of {len(known.total)} features ({about or 'no network named'}), not of"
            f" {_name(extractor)}; name others, or their network by --features"
        )
    return known, {"statistics": str(path), "pictures": known.n or "unknown", "features": about or "unknown"}


def _name(extractor: Extractor) -> str:
    return f"{extractor.network} {extractor.digest}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("t2i-jax", "jax", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of a checkout that is not installed
            found[name] = "not installed"
    return found
