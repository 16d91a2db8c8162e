"""`t2i plot`: curves of runs side by side, from what their training logged."""

import io
import math
import sys
import warnings
from pathlib import Path

from t2i_jax.cli.checks import check_grid_path, check_matplotlib, check_run
from t2i_jax.data.skipped import printable
from t2i_jax.errors import UserError, near_miss

MOST_RUNS = 10  # colours that are told apart
MOST = 60  # panels
STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
FEW = 12  # points of a curve that are marked


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    plot = commands.add_parser("plot", help="draw the curves of runs side by side", allow_abbrev=False)
    plot.add_argument("--run", action="append", required=True, help="run folder; repeat it to compare several")
    plot.add_argument("--what", metavar="NAMES", help="curves, as in loss,nats (all that the runs have)")
    plot.add_argument("--out", default="curves.png", help="a PNG (curves.png)")
    plot.set_defaults(function=run)


def run(args) -> None:
    """Draw the curves that `args` name: a panel for each name, in which all runs and all splits stand."""
    out = Path(args.out)
    check_grid_path(out)
    if len(args.run) > MOST_RUNS:
        raise UserError(f"{len(args.run)} runs are more than {MOST_RUNS} colours that are told apart; name fewer")
    for folder in args.run:
        check_run(folder)
    check_matplotlib("t2i plot")
    import matplotlib

    from t2i_jax import files

    panels = _panels(args.run, args.what)
    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False}):
        warnings.simplefilter("ignore")  # letters of names that its font lacks, numbers near the largest
        picture = _draw(panels, _names(args.run))
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out, picture)
    print(out)


def _panels(folders: list[str], what: str | None) -> dict[str, dict[str, dict[int, dict[int, float]]]]:
    """Numbers by the last part of their tag, by what stands before it, by the number of the run, and by step."""
    from t2i_jax.loop.events import read_scalars

    panels = {"loss": {}}  # first, where there is one
    for number, folder in enumerate(folders):
        scalars, damaged = read_scalars(Path(folder))
        for line in damaged:
            print(f"warning: {line}", file=sys.stderr)
        if not scalars:
            raise UserError(f"--run {folder} has logged nothing yet; name a run that has trained some steps")
        for tag, values in sorted(scalars.items()):
            split, _, name = tag.rpartition("/")
            panels.setdefault(name, {}).setdefault(split, {})[number] = values
    panels = {name: splits for name, splits in panels.items() if splits}
    if what is not None:
        wanted = what.split(",")
        for name in wanted:
            if name not in panels:
                near = near_miss(name, list(panels)) or f"there are {', '.join(map(printable, panels))}"
                raise UserError(f"--what {name} is no curve of these runs; {near}")
        panels = {name: panels[name] for name in wanted}
    if len(panels) > MOST:
        raise UserError(f"{len(panels)} curves are more than {MOST}; name some by --what")
    return panels


def _names(folders: list[str]) -> list[str]:
    """The runs' own names, where these differ."""
    short = [Path(folder).resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else folders


def _draw(panels, runs: list[str]) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows + 0.5), layout="constrained")
    shown = [f"C{number}" for number in range(len(runs))]
    curves = [own for splits in panels.values() for runs_ in splits.values() for own in runs_.values()]
    last = max(1, *(step for own in curves for step in own))
    for place, (name, splits) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(printable(name)[:60], fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, last * 1.03)
        styles = []
        for number, (split, curves) in enumerate(splits.items()):
            line, marker = STYLES[number % len(STYLES)]
            look = {"linestyle": line, "marker": marker, "markersize": 4}
            styles.append(Line2D([], [], color="grey", label=printable(split)[:40] or " ", **look))
            for own, values in curves.items():
                points = sorted((step, value) for step, value in values.items() if math.isfinite(value))
                if len(points) > FEW:
                    look["marker"] = ""
                axes.plot([step for step, _ in points], [value for _, value in points], color=shown[own], **look)
        if len(styles) > 1:
            axes.legend(handles=styles, fontsize=7)
        elif next(iter(splits)):
            axes.set_title(styles[0].get_label(), loc="right", fontsize=7, color="grey")
        if place > len(panels) - columns:
            axes.set_xlabel("step", fontsize=8)
    named = [
        Line2D([], [], color=colour, label=" " + printable(run)[-60:])
        for colour, run in zip(shown, runs, strict=True)
    ]
    figure.legend(handles=named, loc="outside upper center", ncols=min(len(runs), 3), fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
