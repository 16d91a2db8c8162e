"""`t2i sweep`: how right a run's pictures are at every combination of sampling settings."""

import io
import itertools
from datetime import date
from pathlib import Path

from t2i_jax import sampling
from t2i_jax.cli import results
from t2i_jax.cli.checks import check_file, check_matplotlib, check_run, load_translator, results_folder
from t2i_jax.errors import UserError
from t2i_jax.random import check_seed
from t2i_jax.sampling.settings import check_setting

MOST = 200  # combinations


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    sweep = commands.add_parser("sweep", help="score a run at several sampling settings", allow_abbrev=False)
    sweep.add_argument("--run", required=True, help="run folder of a translator whose data set has a judge")
    for name, field in sampling.settings().items():
        option = "--" + name.replace("_", "-")
        sweep.add_argument(option, metavar="A,B,...", help=f"{field.metadata['help']} (the run's own)")
    sweep.add_argument("--seed", type=int, default=0, help="seed of prompts and pictures (0)")
    sweep.add_argument(
        "--out", help="a JSON, beside it a PNG; what an interrupted sweep left there is kept (RUN/sweep.json)"
    )
    results.add_json(sweep)
    sweep.set_defaults(function=run)


def run(args) -> None:
    """Score every combination that `args` name, and write what there is after each."""
    check_seed(args.seed, "--seed")
    given = {name: _values(name, getattr(args, name)) for name in sampling.settings() if getattr(args, name)}
    if not given:
        raise UserError("no setting is varied; give one with several values, as in --temperature 0.3,0.5")
    ways = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
    if len(ways) > MOST:
        raise UserError(f"{len(ways)} combinations are more than {MOST}; give fewer values")
    check_matplotlib("t2i sweep")
    check_run(args.run)
    out = Path(args.out or results_folder(args.run) / "sweep.json")
    for path in (out, out.with_suffix(".png")):
        check_file(path)
    pipe = load_translator(args.run)
    samplers = [pipe.sampler(**way) for way in ways]
    from t2i_jax import files, progress
    from t2i_jax.evals.report import judge_of

    rater = judge_of(pipe.config.data.name).rater
    found = _begun(out, {"digest": pipe.digest, "seed": args.seed})
    missing = [sampler for sampler in samplers if _row(found, sampler) is None]
    rate = rater(pipe, args.seed) if missing else None
    for sampler in progress.bar(missing, desc="sweep", unit="settings", hidden=not missing):
        score, interval = rate(sampler)
        found["rows"].append({"sampling": vars(sampler), "score": score, "interval": interval})
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(out, found | {"run": args.run, "step": pipe.step, "date": date.today().isoformat()})
    shown = [(way, _row(found, sampler)) for way, sampler in zip(ways, samplers, strict=True)]
    results.show(args, _table(shown), [row for _, row in shown], out)
    files.write_atomically(out.with_suffix(".png"), _draw(given, shown))


def _row(found: dict, sampler) -> dict | None:
    """What `found` has of a sampler."""
    return next((row for row in found["rows"] if row["sampling"] == vars(sampler)), None)


def _values(name: str, text: str) -> list:
    """The numbers of a setting, each in its range."""
    field, values = sampling.settings()[name], []
    for part in text.split(","):
        try:
            value = int(part) if field.metadata["range"].whole else float(part)
        except ValueError:
            raise UserError(f"--{name.replace('_', '-')} {text}: {part!r} is no number; give 1 or 1,2") from None
        values.append(check_setting(field, value))
    return list(dict.fromkeys(values))


def _begun(out: Path, stamp: dict) -> dict:
    """What an earlier sweep of the same weights and seed left."""
    from t2i_jax import files

    if not out.exists():
        return stamp | {"rows": []}
    try:
        found = files.read_json(out)
    except files.CorruptError as error:
        raise UserError(f"{error}; name another --out") from None
    if {name: found.get(name) for name in stamp} != stamp or not isinstance(found.get("rows"), list):
        raise UserError(f"{out} is of other weights or of another --seed; name another --out")
    return found


def _table(shown) -> str:
    from t2i_jax.evals import intervals, tables

    best = max(row["score"] for _, row in shown)
    rows = {
        ", ".join(f"{name} {value}" for name, value in way.items()): [
            intervals.cell(row["score"], row["interval"]),
            "best" if row["score"] == best else "",
        ]
        for way, row in shown
    }
    return tables.format_table("share of right pictures", ["score", ""], rows)


def _draw(given: dict[str, list], shown) -> bytes:
    """Score against the setting with most values, a curve for each combination of the others."""
    from matplotlib.figure import Figure

    along = max(given, key=lambda name: len(given[name]))
    curves: dict[str, list] = {}
    for way, row in shown:
        label = ", ".join(f"{name} {value}" for name, value in way.items() if name != along)
        curves.setdefault(label, []).append((way[along], row["score"], row["interval"]))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=along, ylabel="share of right pictures, 95% interval")
    axes.grid(alpha=0.3)
    apart = 0.01 * (max(given[along]) - min(given[along]))  # so that intervals do not hide each other
    for number, (label, points) in enumerate(curves.items()):
        x, y, ends = zip(*sorted(points), strict=True)
        x = [own + apart * (number - (len(curves) - 1) / 2) for own in x]
        low, high = (
            [max(0.0, sign * (end[i] - own)) for own, end in zip(y, ends, strict=True)]
            for i, sign in ((0, -1), (1, 1))
        )
        axes.errorbar(x, y, (low, high), marker="o", capsize=3, label=label)
    if len(curves) > 1:
        axes.legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
