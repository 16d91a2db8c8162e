"""The card of an exported run: what it is, how it is used, what was measured, and what it cannot do."""

from pathlib import Path
from typing import NamedTuple

from t2i_jax import files
from t2i_jax.errors import UserError

GRID, CARD = "samples.png", "README.md"
EVALUATION, METRICS = "evaluation.json", "metrics.json"  # of `t2i evaluate`
SHOWN = 8  # prompts of the grid, and of those `EACH` pictures
EACH = 4
USES = {"train": "to train on", "validation": "to validate"}  # of the splits, whose sizes are among the scores


def sample_grid(pipe, prompts: list[str] | None) -> bytes | None:
    """A PNG of what a run draws with seed 0; None of a run that draws nothing, or of no prompt that is known.

    Args:
      pipe: an opened run.
      prompts: of the pictures; None: the run's own.

    Raises:
      UserError: there are prompts, and the run reads none.
    """
    from t2i_jax.pictures import labelled_grid, plain_grid, to_png

    reads = callable(pipe) and getattr(pipe, "conditional", True)
    if prompts and not reads:
        raise UserError(
            "--prompt is read by runs that draw pictures of prompts, and this one does not; leave it out"
        )
    note = {"digest": pipe.digest, "seed": 0, **(vars(pipe.sampling) if hasattr(pipe, "sampling") else {})}
    if reads:
        prompts = prompts or list(pipe.config.get("shown_captions", ()))[:SHOWN]
        if not prompts:
            return None
        grid = labelled_grid(pipe(prompts, num_images=EACH, seed=0), prompts)
        return to_png(grid, {"prompts": prompts, "n": EACH, "prompt": ", ".join(prompts), **note})
    if hasattr(pipe, "sample") and getattr(pipe, "variational", True):
        return to_png(plain_grid(pipe.sample(4 * EACH, seed=0)), {"prompts": None, "n": 4 * EACH, **note})
    return None


def measured(run: Path, digest: str) -> dict[str, dict]:
    """What `t2i evaluate` left in a run, by file, as far as it is of these weights.

    Raises:
      UserError: a file is corrupt.
    """
    found = {}
    for name in filter(lambda name: (run / name).exists(), (EVALUATION, METRICS)):
        try:
            content = files.read_json(run / name)
        except files.CorruptError as error:
            raise UserError(f"{error}; delete it, or run t2i evaluate again") from None
        of = content if name == EVALUATION else content["pictures"]
        if of.get("digest") == digest and "table" in content:
            found[name] = content
    return found


def write(folder: Path, pipe, name: str, license_: str | None, results: dict[str, dict], scores: dict) -> None:
    """Write the card of an export.

    Args:
      folder: of the export; its grid is shown where there is one.
      pipe: the export, opened.
      name: by which others load it.
      license_: an identifier of huggingface.co, such as apache-2.0; None where nobody said.
      results: see `measured`.
      scores: that training left.
    """
    from huggingface_hub import ModelCardData

    kind = _kind(pipe, name)
    tags = ["jax", "flax", "t2i_jax", pipe.config.model_name]
    head = ModelCardData(license=license_ or "unknown", library_name="t2i_jax", pipeline_tag=kind.task, tags=tags)
    grid = [f"![What it draws with seed 0]({GRID})", ""] if (folder / GRID).exists() else []
    parts = {
        "What it is": [
            f"{kind.what} Made with t2i_jax (JAX, Flax): weights in safetensors, all else in JSON.",
            "",
            *grid,
            "```",
            repr(pipe),
            "```",
        ],
        "How to use it": _how_to_use(kind, name),
        "What was measured": _measurements(results, scores),
        "Data": [_data(pipe.config, scores)],
        "Licence": [license_ or "unknown: say it with --license"],  # of `t2i export`
        "Limits": [f"- {limit}" for limit in _limits(pipe)],
    }
    text = [f"---\n{head}\n---\n", f"# {name.rpartition('/')[2]}"]
    text += ["\n".join([f"\n## {title}\n", *lines]) for title, lines in parts.items()]
    files.write_atomically(folder / CARD, ("\n".join(text) + "\n").encode())


class Kind(NamedTuple):
    """What a card says of a kind of run.

    Attributes:
      task: the hub's name for what it does, where it has one.
      what: a sentence.
      use: Python, once it is loaded.
      command: of `t2i`.
    """

    task: str | None
    what: str
    use: list[str]
    command: str


def _kind(pipe, name: str) -> Kind:
    size = ", ".join(map(str, getattr(pipe, "tokenizer", pipe).shape))
    command, sampled = f"t2i sample --run {name} -n 4", f"images = pipe.sample(4, seed=0)  # uint8 [4, {size}]"
    drawing = "unconditional-image-generation"
    if callable(pipe) and getattr(pipe, "conditional", True):
        prompt = next(iter(pipe.config.get("shown_captions", ())), "...")
        use = f'images = pipe(["{prompt}"], num_images=4, seed=0)  # uint8 [1, 4, {size}]'
        what = "A model that draws pictures of captions, token by token."
        return Kind("text-to-image", what, [use], f'{command} --prompt "{prompt}"')
    if hasattr(pipe, "tokenize"):
        use = [f"ids = pipe.tokenize(images)  # of uint8 [n, {size}]: int32 [n, {pipe.num_tokens}]"]
        use += ["images = pipe.detokenize(ids)  # float32 in [0, 1]"]
        return Kind(None, "An image tokenizer: pictures to tokens, and back.", use, f"t2i doctor --run {name}")
    if hasattr(pipe, "encode"):
        use = [f"z = pipe.encode(images)  # of uint8 [n, {size}]: float32 [n, {pipe.latent}]"]
        use += ["images = pipe.decode(z)  # float32 in [0, 1]"]
        what = "An autoencoder: pictures to latent vectors, and back"
        if pipe.variational:
            return Kind(drawing, f"{what}; and new pictures.", [*use, sampled], command)
        return Kind(None, f"{what}.", use, f"t2i runs {name}")
    return Kind(drawing, "A model that draws pictures, token by token.", [sampled], command)


def _how_to_use(kind: Kind, name: str) -> list[str]:
    python = ["import t2i_jax", "", f'pipe = t2i_jax.load("{name}")', *kind.use]
    return [
        "With `pip install t2i-jax`, in Python:",
        "",
        *("```python", *python, "```"),
        "",
        "or on a command line:",
        "",
        *("```sh", kind.command, "```"),
    ]


def _measurements(results: dict[str, dict], scores: dict) -> list[str]:
    parts = []
    if judged := results.get(EVALUATION):
        made = f"{judged['pictures']:,} pictures a column, seed {judged['seed']}, {judged['date']}"
        parts += [["```", *judged["table"], "```"], [f"By `t2i evaluate`: {made}."]]
    if compared := results.get(METRICS):
        pictures, reference = compared["pictures"], compared["reference"].get("data", "other pictures")
        made = f"{pictures['pictures']:,} pictures against {reference}, seed {pictures['seed']}, {compared['date']}"
        parts += [["```", *compared["table"], "```"], [f"By `t2i evaluate --metrics`: {made}."]]
    numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
    if numbers and not judged:  # whose table has them
        rows = [f"| {name} | {value:.4g} |" for name, value in numbers.items()]
        count = f"{scores['validation_pictures']:,} pictures" if "validation_pictures" in scores else "whole"
        parts += [[f"On the validation split ({count}), when training had come to step {scores['step']:,}:"]]
        parts += [["| score | value |", "|---|---|", *rows]]
    return [line for part in parts for line in ("", *part)][1:] or ["not measured"]


def _data(config, scores: dict) -> str:
    if "converted_from" in config:
        return f"unknown: these are weights converted from {config.converted_from}, which were trained elsewhere"
    captions = ", with captions" if "text_len" in config.data else ""
    counts = [
        f"{scores[f'{split}_pictures']:,} {use}" for split, use in USES.items() if f"{split}_pictures" in scores
    ]
    pictures = f"pictures: {', '.join(counts)}" if counts else "how many pictures is not known"
    return f"{config.data.name}{captions}; {pictures}"


def _limits(pipe) -> list[str]:
    config, limits = pipe.config, []
    if "converted_from" not in config:
        limits += [f"It was trained on {config.data.name} alone; of what is not in there it can make nothing."]
        released = [config.get(name) for name in ("encoder_weights", "decoder_weights", "backbone_weights")]
        if released := [str(weights) for weights in released if weights]:
            limits += [
                f"Parts of it began with released weights ({', '.join(released)}), whose licence counts too."
            ]
    reader = getattr(pipe, "_reader", None)
    if reader is not None and getattr(pipe, "conditional", True):
        limits += [
            f"It reads captions of {reader}. "
            + (
                "Other words are named in a warning, and have no effect."
                if reader.is_closed
                else "Words that its captions never held are read as pieces, and mean little to it."
            )
        ]
    height, width, channels = getattr(pipe, "tokenizer", pipe).shape
    size, colour = f"{height} x {width} pixels", "in colour" if channels == 3 else "grey"
    others = "others were not trained on" if getattr(pipe, "fits_any_size", False) else "no other size"
    limits += [f"Pictures have {size}, {colour}; {others}."]
    if pipe.step < config.steps:
        limits += [f"Its training is not finished: step {pipe.step:,} of {config.steps:,}."]
    return limits
