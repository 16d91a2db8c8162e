"""The evaluation of a translator's run: pictures judged against captions, with ceilings in the same table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t2i_jax import files
from t2i_jax.errors import UserError
from t2i_jax.evals import diversity, faithfulness, tokens
from t2i_jax.evals.detector import Detector

PICTURES = 4  # a prompt
_DRAWS, _STATISTICS = ("data", "teacher_forced", "free_running"), ("entropy", "longest_run", "distinct")
_TOKENIZER_SCORES = ("psnr", "usage", "perplexity")
_TRANSLATOR_SCORES = (
    *("step", "nats", "bigram_nats", "unigram_nats"),
    *(f"{draw}/{statistic}" for draw in _DRAWS for statistic in _STATISTICS),
)


def evaluate_run(translator, run: str | Path, *, seed: int = 0, candidates: int = 1) -> tuple[str, dict]:
    """Draw, reconstruct and judge, at the run's own sampling settings.

    Args:
      translator: a `t2i_jax.pipelines.Translator`, or a `Prior`, whose table then has pictures of uniform ids too.
      run: the folder it was loaded from, for the scores that training left there.
      seed: of prompts and pictures. The captions shown in training's picture grids are left out.
      candidates: drawn for each picture that is judged, which is the one its caption makes likelier most.

    Returns:
      The report as text, and as a dict.

    Raises:
      UserError: there is no judge for the run's data set.
    """
    judges = {"captioned_digits": _judge_digits, "captioned_photos": _judge_photos}
    name = translator.config.data.name.partition("/")[0]
    if name not in judges:
        raise UserError(f"run {run} draws {name}; only {' and '.join(judges)} have a judge of pictures")
    scores = {  # before the minutes that judging takes
        "tokenizer": read_scores(Path(run) / "tokenizer", _TOKENIZER_SCORES),
        "translator": read_scores(Path(run), _TRANSLATOR_SCORES),
    }
    text, judged = judges[name](translator, seed, candidates)
    results = {
        "run": str(run),
        "step": translator.step,
        "digest": translator.digest,
        "seed": seed,
        "candidates": candidates,
        "sampling": vars(translator.sampling),
        **judged,
        **scores,
    }
    return "\n".join([text, "", *_format_training(results)]), results


def _judge_digits(translator, seed: int, candidates: int) -> tuple[str, dict]:
    fine = translator.config.data.name.endswith("/fine")
    detector, columns = Detector(), {}
    for held_out in (False, True):
        prompts = faithfulness.make_prompts(seed, held_out=held_out, exclude=translator.config.shown_captions)
        real = faithfulness.real_scenes(prompts, PICTURES, seed, fine=fine)
        captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]
        pictures = {
            "generated": _draw(translator, captions, seed, candidates).reshape(real.shape),
            "reconstructed": _reconstruct(translator.tokenizer, real),
            "real": real,
        }
        if translator.config.task == "prior":
            pictures["uniform"] = _draw_uniform(translator.tokenizer, len(captions), seed).reshape(real.shape)
        for kind, images in pictures.items():
            column = f"held-out {kind}" if held_out else kind
            columns[column] = faithfulness.score(prompts, images, detector)
    prompts = diversity.make_open_prompts(seed)
    pictures = {
        "generated": _draw(translator, [prompt.caption for prompt in prompts], seed, candidates),
        "real": faithfulness.real_scenes(prompts, 1, seed, fine=fine)[:, 0],
    }
    varied = {kind: diversity.measure(prompts, detector(images), fine=fine) for kind, images in pictures.items()}
    text = f"{faithfulness.format_table(columns)}\n\n{diversity.format_table(varied)}"
    return text, {"faithfulness": columns, "diversity": varied}


def _judge_photos(translator, seed: int, candidates: int) -> tuple[str, dict]:
    from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, random_crops
    from t2i_jax.evals import photographs  # only here, because it asks for the extra `photos`

    prompts = [words for words in PHOTOGRAPHS for _ in range(photographs.PICTURES)]
    real = random_crops(photographs.PICTURES, seed)
    pictures = {
        "generated": _draw(translator, prompts, seed, candidates).reshape(real.shape),
        "reconstructed": _reconstruct(translator.tokenizer, real),
        "real": real,
    }
    columns = {kind: photographs.score(images) for kind, images in pictures.items()}
    return photographs.format_table(columns), {"nearest_photograph": columns}


def _draw(translator, captions: Sequence[str], seed: int, candidates: int) -> np.ndarray:
    """One picture after another, each with numbers of its own: where captions repeat, pictures do not."""
    repeated = [caption for caption in captions for _ in range(candidates)]
    ids = translator.draw_ids(repeated, np.arange(len(repeated)), seed, translator.sampling)
    if candidates > 1:
        ratios = translator.likelihood_ratios(repeated, ids).reshape(-1, candidates)
        ids = ids.reshape(*ratios.shape, -1)[np.arange(len(captions)), ratios.argmax(1)]
    return _pictures(translator.tokenizer, ids)


def _draw_uniform(tokenizer, count: int, seed: int) -> np.ndarray:
    """What the codes are worth without a prior: the floor, as reconstructions are the ceiling."""
    return _pictures(tokenizer, tokens.uniform_ids(count, tokenizer.num_tokens, tokenizer.codebook_size, seed))


def _reconstruct(tokenizer, images: np.ndarray) -> np.ndarray:
    flat = images.reshape(-1, *images.shape[2:])
    return _pictures(tokenizer, tokenizer.tokenize(flat)).reshape(images.shape)


def _pictures(tokenizer, ids: np.ndarray) -> np.ndarray:
    return np.uint8(tokenizer.detokenize(ids) * 255 + 0.5)


def read_scores(folder: Path, names: Sequence[str]) -> dict:
    """The validation scores that training left in a run folder; empty where it has not come to any.

    Args:
      folder: of the run.
      names: what must be among them.

    Raises:
      UserError: they are damaged, or others.
    """
    path = folder / "scores.json"
    if not path.exists():
        return {}
    try:
        scores = files.read_json(path)
    except files.CorruptError as error:
        raise UserError(f"{error}; delete it to evaluate without it") from None
    missing = [name for name in names if name not in scores]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; delete it to evaluate without it")
    return scores


def _format_training(results: dict) -> list[str]:
    lines, tokenizer, scores = [], results["tokenizer"], results["translator"]
    if tokenizer:
        lines.append(
            f"tokenizer, whole validation split: PSNR {tokenizer['psnr']:.2f} dB, codebook usage"
            f" {tokenizer['usage']:.1%}, perplexity {tokenizer['perplexity']:.0f}"
        )
    if scores:
        lines.append(
            f"cross entropy at step {scores['step']}, nats a token: {scores['nats']:.3f}"
            f" (bigram baseline {scores['bigram_nats']:.3f}, unigram {scores['unigram_nats']:.3f})"
        )
        lines.append("token statistics        entropy  longest run  distinct codes a picture")
        for name in _DRAWS:
            entropy, run, distinct = (scores[f"{name}/{key}"] for key in _STATISTICS)
            lines.append(f"  {name.replace('_', ' '):<20}  {entropy:7.3f}  {run:11.2f}  {distinct:14.2f}")
    sampling = ", ".join(f"{name} {value}" for name, value in results["sampling"].items())
    best = f", best of {results['candidates']} by likelihood" if results["candidates"] > 1 else ""
    lines.append(f"step {results['step']}, seed {results['seed']}, sampling: {sampling}{best}")
    return lines
