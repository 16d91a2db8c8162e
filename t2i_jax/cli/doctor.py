"""`t2i doctor`: whether a tokenizer is fit for stage two."""

from pathlib import Path

import t2i_jax
from t2i_jax.cli.checks import check_grid_path, check_run
from t2i_jax.errors import UserError


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    doctor = commands.add_parser("doctor", help="examine a tokenizer's health", allow_abbrev=False)
    doctor.add_argument("--run", required=True, help="run folder of an image tokenizer")
    doctor.add_argument("--out", help="where the grid of the worst pictures goes (RUN/worst.png)")
    doctor.set_defaults(function=run)


def run(args) -> None:
    """Examine the run that `args` name."""
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
