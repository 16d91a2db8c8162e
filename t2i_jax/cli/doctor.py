"""`t2i doctor`: whether a tokenizer is fit for stage two, and what a config would cost."""

from pathlib import Path

import t2i_jax
from t2i_jax.cli.checks import check_grid_path, check_run
from t2i_jax.errors import UserError


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    doctor = commands.add_parser(
        "doctor", help="examine a tokenizer's health, or what a config costs", allow_abbrev=False
    )
    what = doctor.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder of an image tokenizer")
    what.add_argument("--config", help="configs/NAME.py or configs/NAME.py:VARIANT; with --dry-run")
    doctor.add_argument(
        "--dry-run",
        action="store_true",
        help="parameters, memory, FLOPs and checkpoints of --config, without training",
    )
    doctor.add_argument("--out", help="where the grid of the worst pictures goes (RUN/worst.png)")
    doctor.set_defaults(function=run)


def run(args) -> None:
    """Examine the run or the config that `args` name."""
    if args.dry_run != (args.config is not None):
        raise UserError("--dry-run and --config go together, as in --config configs/translator.py:coco --dry-run")
    if args.config is not None:
        from t2i_jax.loop.command_line import load_config
        from t2i_jax.stages import dry_run

        print(dry_run.report(load_config(args.config)))
        return
    check_run(args.run)
    out = Path(args.out or Path(args.run) / "worst.png")
    check_grid_path(out)

    tokenizer = t2i_jax.load(args.run)
    if not hasattr(tokenizer, "tokenize"):
        raise UserError(
            f"--run {args.run} holds no image tokenizer; name one, such as a translator's folder tokenizer"
        )
    from PIL import Image

    from t2i_jax.evals.health import examine

    report, _, worst = examine(tokenizer)
    print(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(worst).save(out)
    print(out)
