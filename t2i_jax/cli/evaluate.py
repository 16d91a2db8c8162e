"""`t2i evaluate`: scores of a run's pictures, or of any pictures."""

from datetime import date
from pathlib import Path

import t2i_jax
from t2i_jax.cli import memory, results
from t2i_jax.cli.checks import check_file, check_run, image_size, load_translator, results_folder
from t2i_jax.cli.sample import MAX_NUM, read_prompts
from t2i_jax.errors import UserError
from t2i_jax.random import check_seed
from t2i_jax.ranges import sides

PICTURES = 5000  # of a run, where -n does not say


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    evaluate = commands.add_parser("evaluate", help="score a run's pictures, or any", allow_abbrev=False)
    what = evaluate.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--run", help="run folder: of a translator, where its data set has a judge; with --metrics any"
    )
    what.add_argument("--images", metavar="DIR", help="folder of pictures made by anything else")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of prompts and pictures (0)")
    evaluate.add_argument(
        "--candidates",
        type=int,
        default=1,
        help=f"pictures drawn for each that is judged: the likeliest is, up to {MAX_NUM} (1)",
    )
    evaluate.add_argument("--out", help="where the JSON goes (RUN/evaluation.json; RUN/metrics.json of --metrics)")
    compared = evaluate.add_argument_group("features", "distances of features, in place of the judge")
    compared.add_argument(
        "--metrics", help="fd, fdinf, kid, pr, is, cmmd, clip: several with commas (fd,kid,pr of --images)"
    )
    compared.add_argument(
        "--features", metavar="FOLDER", help="what t2i convert inception or lpips made; or CLIP's, as released"
    )
    compared.add_argument("--reference", metavar="DIR_OR_NPZ", help="real pictures (of --run: its data, --split)")
    compared.add_argument("--split", help="of the run's data: captions, and reference (validation)")
    compared.add_argument("--prompts-file", help="captions in place of the split's: UTF-8 text, one a line")
    compared.add_argument(
        "-n", "--num", type=int, help=f"pictures (of --run {PICTURES}, or the split's; of --images all)"
    )
    compared.add_argument(
        "--size", type=image_size, help="scale the middles of the files' pictures to this side, or height,width"
    )
    compared.add_argument(
        "--save-reference", metavar="NPZ", help="keep statistics of the reference, for the next time"
    )
    results.add_json(evaluate)
    evaluate.set_defaults(function=run)


def run(args) -> None:
    """Score the run, or the pictures, that `args` name."""
    check_seed(args.seed, "--seed")
    if not 1 <= args.candidates <= MAX_NUM:
        raise UserError(f"--candidates {args.candidates} is out of range; give 1 to {MAX_NUM}")
    if args.run is not None:
        check_run(args.run)
    by_features = args.images is not None or args.metrics is not None
    out = Path(args.out or results_folder(args.run) / ("metrics.json" if by_features else "evaluation.json"))
    check_file(out)
    parts = out.with_name(out.name + ".parts")
    table, found = _compare(args, parts) if by_features else _judge(args)

    from t2i_jax.evals.metrics.parts import remove
    from t2i_jax.files import write_json

    out.parent.mkdir(parents=True, exist_ok=True)
    found = {**found, "date": date.today().isoformat(), "table": table.splitlines()}
    write_json(out, found)
    if by_features:
        remove(parts)
    results.show(args, table, found, out)


def _judge(args):
    for name in ("features", "reference", "split", "prompts_file", "num", "size", "save_reference"):
        if getattr(args, name) is not None:
            flag = "-n" if name == "num" else "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} goes together with --metrics or --images; the judge of --run has its own pictures"
            )
    folder = check_run(args.run)
    pipe = load_translator(folder)
    from t2i_jax.evals.report import evaluate_run

    return evaluate_run(pipe, folder, seed=args.seed, candidates=args.candidates)


def _compare(args, parts):
    if args.candidates != 1:
        raise UserError("--candidates goes together with the judge of --run; leave it, or --metrics, out")
    if args.features is None:
        raise UserError(
            "--metrics needs --features FOLDER, a network that t2i convert inception or lpips made, or CLIP's"
        )
    for flag, value in (("--split", args.split), ("--prompts-file", args.prompts_file)):
        if args.images is not None and value is not None:
            raise UserError(f"{flag} says what a --run draws for; name the --reference of --images")
    scaled = sides(args.size) if args.size is not None else ()
    for flag, value, least in (("-n", args.num, 2), *(("--size", side, 8) for side in scaled)):
        if value is not None and value < least:
            raise UserError(f"{flag} {value} is below {least}; give more")
    memory.keep()
    from t2i_jax.evals.metrics import features, measure, protocol, sets

    statistics = args.reference is not None and args.reference.endswith(protocol.STATISTICS)
    metrics = (args.metrics or ("fd" if statistics else "fd,kid,pr")).split(",")
    alone = measure.ALONE.issuperset(metrics)
    if args.images is not None and args.reference is None and not alone:
        raise UserError("--images needs --reference, a folder of real pictures or an .npz of statistics")
    for flag, value in (("--reference", args.reference), ("--save-reference", args.save_reference)):
        if alone and value is not None:
            raise UserError(f"--metrics {','.join(metrics)} looks at no reference; leave {flag} out")
    if args.save_reference is not None:
        check_file(Path(args.save_reference))
    extractor = features.load(args.features)
    if args.images is not None:
        pictures, reference, card = sets.Folder(args.images, args.size, args.num), args.reference, {}
    else:
        pipe = t2i_jax.load(args.run)
        reference, drawn_for = _of_a_run(args, pipe.config.data, alone)
        pictures, card = sets.Drawn(pipe, drawn_for, args.seed), {"run": args.run}
    if args.reference is not None and not statistics:
        reference = sets.Folder(args.reference, args.size)
    table, found = protocol.compare(
        metrics, extractor, pictures, reference, seed=args.seed, save=args.save_reference, parts=parts
    )
    return table, card | found


def _of_a_run(args, data, alone):
    """The reference, and what is drawn for, as far as they are of the run's data; that may not be here.

    `alone` is whether the metrics look at no reference.
    """
    from t2i_jax.evals.metrics import sets

    split, prompts = args.split or "validation", args.prompts_file and read_prompts(args.prompts_file)
    whole = None if prompts and (args.reference or alone) else sets.Split(data, split)
    if not prompts:
        count = args.num or min(PICTURES, len(whole))
        return args.reference or whole, sets.Split(data, split, count, args.seed)
    if args.num is not None and args.num > len(prompts):
        raise UserError(f"-n {args.num} is above the {len(prompts)} prompts of {args.prompts_file}; ask for fewer")
    return args.reference or whole, sets.Prompts(args.prompts_file, prompts[: args.num])
