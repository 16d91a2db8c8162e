"""The evaluation of a translator's run: pictures judged against captions, with ceilings in the same table."""

import json
from pathlib import Path

import numpy as np

from t2i_jax.errors import UserError
from t2i_jax.evals import faithfulness
from t2i_jax.evals.detector import Detector

PICTURES = 4  # a prompt


def evaluate_run(translator, run: str | Path, *, seed: int = 0) -> tuple[str, dict]:
    """Draw, reconstruct and judge, at the run's own sampling settings.

    Args:
      translator: a `t2i_jax.generate.Translator`.
      run: the folder it was loaded from, for the scores that training left there.
      seed: of prompts and pictures. The captions shown in training's picture grids are left out.

    Returns:
      The report as text, and as a dict.

    Raises:
      UserError: the run's data set has no detector.
    """
    config = translator.config
    name, _, variant = config.data.name.partition("/")
    if name != "captioned_digits":
        raise UserError(
            f"run {run} draws {name}; only captioned_digits has a detector to judge pictures against captions"
        )
    detector, columns = Detector(), {}
    for held_out in (False, True):
        prompts = faithfulness.make_prompts(seed, held_out=held_out, exclude=config.shown_captions)
        real = faithfulness.real_scenes(prompts, PICTURES, seed, fine=variant == "fine")
        flat = real.reshape(-1, *real.shape[2:])
        restored = translator.tokenizer.detokenize(translator.tokenizer.tokenize(flat))
        pictures = {
            "generated": _draw(translator, prompts, seed),
            "reconstructed": np.uint8(restored * 255 + 0.5).reshape(real.shape),
            "real": real,
        }
        for kind, images in pictures.items():
            column = f"held-out {kind}" if held_out else kind
            columns[column] = faithfulness.score(prompts, images, detector)
    results = {
        "run": str(run),
        "step": translator.step,
        "digest": translator.digest,
        "seed": seed,
        "sampling": vars(translator.sampling),
        "faithfulness": columns,
        "tokenizer": read_scores(Path(run) / "tokenizer"),
        "translator": read_scores(Path(run)),
    }
    return _format(results), results


def read_scores(folder: Path) -> dict:
    """The validation scores that training left in a run folder; empty where it has not come to any."""
    path = folder / "scores.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise UserError(f"{path} is damaged; delete it to evaluate without it") from None


def _draw(translator, prompts, seed: int) -> np.ndarray:
    """One picture after another, each with a number of its own: where prompts repeat, pictures do not."""
    captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]
    ids = translator.draw_ids(captions, np.arange(len(captions)), seed, translator.sampling)
    images = np.uint8(translator.tokenizer.detokenize(ids) * 255 + 0.5)
    return images.reshape(len(prompts), PICTURES, *images.shape[1:])


def _format(results: dict) -> str:
    lines = [faithfulness.format_table(results["faithfulness"]), ""]
    tokenizer, scores = results["tokenizer"], results["translator"]
    if tokenizer:
        lines.append(
            f"tokenizer, whole validation split: PSNR {tokenizer['psnr']:.2f} dB, codebook usage"
            f" {tokenizer['usage']:.1%}, perplexity {tokenizer['perplexity']:.0f}"
        )
    if scores:
        lines.append(
            f"cross entropy, nats a token: {scores['nats']:.3f}"
            f" (bigram baseline {scores['bigram_nats']:.3f}, unigram {scores['unigram_nats']:.3f})"
        )
        lines.append("token statistics        entropy  longest run  distinct codes a picture")
        for name in ("data", "teacher_forced", "free_running"):
            entropy, run, distinct = (scores[f"{name}/{key}"] for key in ("entropy", "longest_run", "distinct"))
            lines.append(f"  {name.replace('_', ' '):<20}  {entropy:7.3f}  {run:11.2f}  {distinct:14.2f}")
    sampling = ", ".join(f"{name} {value}" for name, value in results["sampling"].items())
    lines.append(f"step {results['step']}, seed {results['seed']}, sampling: {sampling}")
    return "\n".join(lines)
