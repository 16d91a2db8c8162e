"""`t2i doctor`: whether a tokenizer is fit for stage two, what a config costs, and whether it can learn at all."""

from pathlib import Path

import t2i_jax
from t2i_jax.cli import results
from t2i_jax.cli.checks import check_grid_path, check_run, results_folder
from t2i_jax.cli.train import CONFIG
from t2i_jax.errors import UserError


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    doctor = commands.add_parser(
        "doctor", help="examine a tokenizer's health, or a config before it is trained", allow_abbrev=False
    )
    what = doctor.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder of an image tokenizer")
    what.add_argument("--config", help=f"experiment: {CONFIG}; with --config.FIELD=VALUE as for t2i train")
    how = doctor.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="parameters, memory, FLOPs and checkpoints of --config, without training",
    )
    how.add_argument(
        "--overfit",
        type=int,
        metavar="N",
        help="overfit N captions of --config and sample their tokens again, or N pictures of a tokenizer's",
    )
    doctor.add_argument(
        "--data", metavar="NAME", help="set to judge --run by, pictures scaled to fit (the run's own)"
    )
    doctor.add_argument("--data-dir", help="folder of prepared sets (the run's own)")
    doctor.add_argument("--split", help="of the set, as in validation or train[:1000] (the run's validation split)")
    doctor.add_argument("--out", help="where the grid of the worst pictures goes (RUN/worst.png)")
    results.add_json(doctor)
    doctor.set_defaults(function=run)


def run(args) -> None:
    """Examine the run or the config that `args` name."""
    asked = args.dry_run or args.overfit is not None
    if asked != (args.config is not None):
        raise UserError("--config goes together with --dry-run or --overfit N, as in --config translator --dry-run")
    if args.config is not None:
        if useless := [name for name in ("data", "data_dir", "split", "out") if getattr(args, name) is not None]:
            raise UserError(
                f"--{useless[0].replace('_', '-')} goes together with --run; leave it out: the data of a"
                " config are --config.data, and no pictures are made of it"
            )
        _examine_config(args)
        return
    if args.overrides:
        raise UserError(f"{args.overrides[0]} changes a field of --config, and there is none")
    check_run(args.run)
    out = Path(args.out or results_folder(args.run) / "worst.png")
    check_grid_path(out)

    tokenizer = t2i_jax.load(args.run)
    if not hasattr(tokenizer, "tokenize"):
        raise UserError(
            f"--run {args.run} holds no image tokenizer; name one, such as parents/tokenizer in a translator's run"
        )
    own = tokenizer.config.data
    if args.data is None and args.data_dir is None and not Path(own.data_dir).is_dir():
        raise UserError(
            f"the data of --run {args.run} lie in {own.data_dir}, which is not here; give --data-dir, or start the"
            " command where the run was trained"
        )
    from PIL import Image

    from t2i_jax.evals.health import examine

    report, found, worst = examine(tokenizer, args.data, args.data_dir, args.split)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(worst).save(out)
    results.show(args, report, found, out)


def _examine_config(args):
    from t2i_jax.config import load_config
    from t2i_jax.loop import dry_run, overfit

    config = load_config(args.config, args.overrides)
    results.show(args, *(dry_run.report(config) if args.dry_run else overfit.report(config, args.overfit)))
