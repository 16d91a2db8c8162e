"""`t2i export`: a run -> a folder to share, or weights that other programs read; and onto the hub."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from t2i_jax.cli import card
from t2i_jax.cli.checks import check_run
from t2i_jax.errors import UserError

PLACES = ("run", "dir", "source", "weights", "init_from")  # ends of the names of a config's fields that hold paths


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    export = commands.add_parser("export", help="a run as a folder to share, with a model card", allow_abbrev=False)
    export.add_argument("--run", required=True, help="run folder, or OWNER/NAME on the hub")
    export.add_argument("--out", required=True, help="folder to make; it must not exist yet")
    export.add_argument(
        "--format",
        choices=list(FORMATS),
        default="t2i",
        help="t2i: for t2i_jax.load, and --run of all commands; transformers: a translator's weights for"
        " EncoderDecoderModel.from_pretrained (t2i)",
    )
    export.add_argument("--license", metavar="ID", help="of the weights, as the hub calls it: apache-2.0 (unknown)")
    export.add_argument("--prompt", action="append", help="of the card's pictures; repeat it (the run's own)")
    export.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload it into a new repository as well")
    export.add_argument("--private", action="store_true", help="a repository that others do not see")
    export.set_defaults(function=run)


def run(args) -> None:
    """Write what `args` say; the folder appears atomically."""
    out = Path(args.out)
    if args.private and not args.push_to_hub:
        raise UserError("--private is about --push-to-hub; give both, or neither")
    if args.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", args.license):
        raise UserError(
            f"--license {args.license!r} is no identifier of the hub; give one such as apache-2.0, or other"
        )
    for name in ("license", "prompt"):
        if getattr(args, name) and args.format != "t2i":
            raise UserError(f"--{name} is for the card, which --format {args.format} has not; leave it out")
    source = check_run(args.run)
    from t2i_jax.convert import hub
    from t2i_jax.pipelines import converted

    converted.check_free(out)
    if args.push_to_hub:
        hub.check_upload(args.push_to_hub)
    FORMATS[args.format](args, source, out)
    print(out)
    if args.push_to_hub:
        print(hub.upload(out, args.push_to_hub, private=args.private))


def _copy(run: Path, folder: Path, recover: Callable | None = None) -> None:
    """Write what a run is used by, and no more: config, weights, scores, text tokenizer, parents."""
    from t2i_jax import files, runs

    folder.mkdir(parents=True, exist_ok=True)
    config = _without_places(runs.read_written_config(run / runs.CONFIG))
    files.write_json(folder / runs.CONFIG, {"format": runs.FORMAT, **config})
    params, variables, step, _ = runs.read_weights(run, recover)
    runs.write_weights(folder, params, variables, step)
    for name in (runs.SCORES, runs.TEXT_TOKENIZER):
        if (run / name).exists():
            files.write_json(folder / name, files.read_json(run / name))
    for parent in (run / runs.PARENTS).glob("*/"):
        _copy(parent, runs.parent_folder(folder, parent.name))


def _without_places(value, name: str = ""):
    """A config whose absolute paths are names alone: they mean nothing elsewhere, and are nobody's business."""
    if isinstance(value, dict):
        return {key: _without_places(each, key) for key, each in value.items()}
    if isinstance(value, str) and name.endswith(PLACES) and Path(value).is_absolute():
        return Path(value).name
    return value


def _write_own(args, source: Path, out: Path) -> None:
    import t2i_jax
    from t2i_jax import files, runs

    name = args.push_to_hub or out.name
    with files.replacing(out) as folder:
        _copy(source, folder, t2i_jax.recover_weights)
        pipe = t2i_jax.load(folder)
        if grid := card.sample_grid(pipe, args.prompt):
            files.write_atomically(folder / card.GRID, grid)
        elif callable(pipe):
            print(
                "warning: no prompt is known, so the card has no pictures; give some by --prompt", file=sys.stderr
            )
        results = card.measured(source, pipe.digest)
        if judged := results.get(card.EVALUATION):
            files.write_json(folder / card.EVALUATION, {key: judged[key] for key in judged if key != "run"})
        card.write(folder, pipe, name, args.license, results, runs.read_scores(folder))


def _write_transformers(args, source: Path, out: Path) -> None:
    import t2i_jax
    from t2i_jax import files, models, runs
    from t2i_jax.convert import encoder_decoder
    from t2i_jax.data import vocabularies
    from t2i_jax.tasks import pretrained

    config = runs.read_config(source)
    if not pretrained.fits(models.build(config)):
        raise UserError(
            f"--run {args.run} holds no BERT and GPT-2 ({config.model_name}); only those have this format"
        )
    params = runs.read_weights(source, t2i_jax.recover_weights)[0]
    pieces = source / runs.TEXT_TOKENIZER
    tokenizer = None
    if pieces.exists():
        tokenizer = vocabularies.with_unused(files.read_json(pieces), config.model.text_vocab_size)
    with files.replacing(out) as partial:
        encoder_decoder.save(partial, config.model, params, tokenizer)
    if "converted_from" not in config:
        print("warning: the null caption and the image tokenizer have no place in this format", file=sys.stderr)


FORMATS = {"t2i": _write_own, "transformers": _write_transformers}
