"""`t2i evaluate`: scores of a run's pictures."""

from pathlib import Path

from t2i_jax.cli.checks import check_file, check_run, load_translator
from t2i_jax.cli.sample import MAX_NUM
from t2i_jax.errors import UserError
from t2i_jax.random import check_seed


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    evaluate = commands.add_parser("evaluate", help="score a run's pictures", allow_abbrev=False)
    evaluate.add_argument("--run", required=True, help="run folder of a translator")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of prompts and pictures (0)")
    evaluate.add_argument(
        "--candidates",
        type=int,
        default=1,
        help=f"pictures drawn for each that is judged: the likeliest is, up to {MAX_NUM} (1)",
    )
    evaluate.add_argument("--out", help="where the JSON goes (RUN/evaluation.json)")
    evaluate.set_defaults(function=run)


def run(args) -> None:
    """Score the run that `args` name."""
    check_seed(args.seed, "--seed")
    if not 1 <= args.candidates <= MAX_NUM:
        raise UserError(f"--candidates {args.candidates} is out of range; give 1 to {MAX_NUM}")
    check_run(args.run)
    out = Path(args.out or Path(args.run) / "evaluation.json")
    check_file(out)

    pipe = load_translator(args.run)
    from t2i_jax.evals.report import evaluate_run
    from t2i_jax.files import write_json

    table, results = evaluate_run(pipe, args.run, seed=args.seed, candidates=args.candidates)
    print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, results)
    print(out)
