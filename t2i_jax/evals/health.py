"""Is a tokenizer fit for stage two? Use of its codebook, quality of its reconstructions, and a verdict."""

from functools import partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from t2i_jax import losses
from t2i_jax.data import pipeline, sources
from t2i_jax.data.images import crop
from t2i_jax.errors import UserError
from t2i_jax.evals.reconstruction import codebook_health
from t2i_jax.pictures import pair_grid

THRESHOLDS = {"usage": 0.5, "psnr": 20.0, "ssim": 0.7}
"""Least values of a tokenizer that a translator can be built on. Collapsed codebooks use 2 to 4% of their codes,
sound ones above 90%; 20 dB is what published tokenizers reach on photographs (LlamaGen, table 3: 20.8). The least
perplexity is the square root of the codebook's size: a token then carries half of the bits that it could."""

WORST = 16  # pictures shown
_BATCH = 256


def examine(
    tokenizer, name: str | None = None, data_dir: str | None = None, split: str | None = None
) -> tuple[str, dict, UInt8[np.ndarray, "H W C"]]:
    """Tokenize and restore a whole split.

    Args:
      tokenizer: a `t2i_jax.pipelines.Tokenizer`.
      name, data_dir, split: of the pictures; None is what the run's config names, its validation split. Pictures of
        another size are cropped in the middle to the model's shape, and scaled to its size.

    Returns:
      The report as text, as a dict (`fit` is the verdict), and a grid of the worst pictures over what became of
      them.

    Raises:
      UserError: the data set cannot be opened, or its pictures have other channels than the tokenizer reads.
    """
    own, shape = tokenizer.config.data, tokenizer.shape[:2]
    name, data_dir, split = name or own.name, data_dir or own.data_dir, split or own.validation
    source = own.get("source", "") if name == own.name else ""
    dataset, _ = sources.open_split({**own, "name": name, "data_dir": data_dir, "source": source}, split)
    channels = dataset[0]["image"].shape[-1]
    if channels != own.channels:
        raise UserError(
            f"pictures of {name} have {channels} channels, this tokenizer reads {own.channels}; name others"
        )
    ids, decibels, similarities, worst = [], [], [], []
    for batch, count in pipeline.one_pass(dataset, partial(_pixels, shape=shape), _BATCH):
        images = batch["image"][:count]
        ids.append(tokenizer.tokenize(images))
        restored = tokenizer.detokenize(ids[-1])
        decibels.append(np.asarray(losses.psnr(restored, images)))
        similarities.append(losses.ssim(restored, images))
        pairs = zip(decibels[-1], images, restored, strict=True)
        worst = sorted([*worst, *pairs], key=lambda pair: pair[0])[:WORST]
    ids, decibels = np.concatenate(ids), np.concatenate(decibels)
    size = tokenizer.codebook_size
    results = codebook_health(ids, size) | {
        "data": f"{name}, {split}",
        "codebook_size": size,
        "dead_codes": int(size - len(np.unique(ids))),
        "pictures": len(ids),
        "tokens": ids.shape[1],
        "psnr": float(np.mean(decibels)),
        "psnr_worst": float(np.min(decibels)),
        "ssim": float(np.mean(np.concatenate(similarities))),
    }
    results["fit"] = not failing(results)
    _, originals, restored = map(np.stack, zip(*worst, strict=True))
    return format_report(results), results, pair_grid(originals, restored)


def _pixels(example, rng, *, shape):
    image = example["image"]
    if image.shape[:2] != shape:
        image = crop(Image.fromarray(image.squeeze()), shape).reshape(*shape, -1)
    return {"image": image.astype(np.float32) / 255}


def thresholds(codebook_size: int) -> dict[str, float]:
    """THRESHOLDS, and that of perplexity."""
    return {"usage": THRESHOLDS["usage"], "perplexity": codebook_size**0.5} | THRESHOLDS


def failing(results: dict) -> list[str]:
    """Names of the measures below their threshold."""
    return [name for name, least in thresholds(results["codebook_size"]).items() if results[name] < least]


def format_report(results: dict) -> str:
    """One line a measure, with its threshold, and the verdict."""
    shown = {
        "usage": f"{results['usage']:.1%} of {results['codebook_size']} codes, {results['dead_codes']} dead",
        "perplexity": f"{results['perplexity']:.1f}",
        "psnr": f"{results['psnr']:.2f} dB (worst picture {results['psnr_worst']:.2f})",
        "ssim": f"{results['ssim']:.3f}",
    }
    least = {name: f"{value:.3g}" for name, value in thresholds(results["codebook_size"]).items()}
    least["usage"] = f"{THRESHOLDS['usage']:.0%}"
    bad = failing(results)
    lines = [f"{results['data']}: {results['pictures']} pictures of {results['tokens']} tokens"]
    lines += [
        f"{name:<10}  {text:<44}  at least {least[name]:<6}  {'too low' if name in bad else 'ok'}"
        for name, text in shown.items()
    ]
    verdict = f"not fit for stage two: {', '.join(bad)} too low" if bad else "fit for stage two"
    return "\n".join([*lines, f"verdict: {verdict}"])
