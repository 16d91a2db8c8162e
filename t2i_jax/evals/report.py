"""The evaluation of a translator's run: pictures judged against captions, with ceilings in the same table."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from t2i_jax import runs
from t2i_jax.errors import UserError
from t2i_jax.evals import judges

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
    judge = judge_of(translator.config.data.name).judge
    scores = {  # before the minutes that judging takes
        "tokenizer": read_scores(runs.parent_folder(Path(run), "tokenizer"), _TOKENIZER_SCORES),
        "training": read_scores(Path(run), _TRANSLATOR_SCORES),
    }
    text, judged = judge(translator, seed, candidates)
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


def judge_of(data: str):
    """The module of `evals.judges` that a data set has.

    Args:
      data: `config.data.name`.

    Raises:
      UserError: there is none.
    """
    name = data.partition("/")[0]
    known = [module.name for module in iter_modules(judges.__path__)]
    if name not in known:
        raise UserError(f"pictures of {name} have no judge; only those of {', '.join(known)} have")
    return import_module(f"{judges.__name__}.{name}")


def check_judged(config, model) -> None:
    """Whether a run can be judged every `config.judge_every` steps of its training.

    Raises:
      UserError: its data set has no judge, its model reads no captions, or the interval is no multiple of
        `config.eval_every`: the scores of a step are written together.
    """
    judge_of(config.data.name)
    every = f"config.judge_every {config.judge_every}"
    if not getattr(model, "conditional", True):
        raise UserError(f"{every} asks for pictures of captions, which this model does not read; set it to 0")
    if config.judge_every % config.eval_every:
        raise UserError(
            f"{every} is no multiple of config.eval_every {config.eval_every}; give one, or another eval_every"
        )


def read_scores(folder: Path, names: Sequence[str]) -> dict:
    """See `runs.read_scores`.

    Raises:
      UserError: they are corrupt, or lack one of `names`.
    """
    scores = runs.read_scores(folder)
    if missing := [name for name in names if scores and name not in scores]:
        raise UserError(f"{folder / runs.SCORES} has no {missing[0]}; delete it to go on without it")
    return scores


def _format_training(results: dict) -> list[str]:
    lines, tokenizer, scores = [], results["tokenizer"], results["training"]
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
