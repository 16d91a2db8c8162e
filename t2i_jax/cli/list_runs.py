"""`t2i runs`: the runs in a folder, how far they are, and what to do next."""

import shlex
import time
from pathlib import Path

from t2i_jax.cli import results
from t2i_jax.data.skipped import printable
from t2i_jax.errors import UserError

UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    listing = commands.add_parser(
        "runs", help="list runs: step, score, size, age, and what to do next", allow_abbrev=False
    )
    listing.add_argument("dir", nargs="?", default="runs", help="folder that is searched (runs)")
    results.add_json(listing)
    listing.set_defaults(function=run)


def run(args) -> None:
    """List the runs below `args.dir`."""
    folder = Path(args.dir)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; train something first, or name the folder your runs lie in")
    found = [describe(path) for path in find(folder)]
    if not found:
        raise UserError(f"{folder} holds no run; name the folder that --workdir of your training lies in")
    from t2i_jax.evals.tables import format_table

    columns = ("model", "step", "score", "MB", "age")
    rows = {entry["run"]: _cells(entry) for entry in found}
    ways_on = [f"{entry['run']}:\n  {_broken(entry['next'])}" for entry in found]
    results.show(args, "\n".join([format_table("run", columns, rows), "", *ways_on]), found)


def find(folder: Path) -> list[Path]:
    """Run folders in a folder, itself among them; copies of parents within a run are part of it."""
    from t2i_jax import runs

    if (folder / runs.CONFIG).exists():
        return [folder]
    below = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(run for path in below for run in find(path))


def describe(folder: Path) -> dict:
    """What there is to say of a run; of one that cannot be read, why.

    Returns:
      `run`, `model`, `step`, `steps`, `score` (name and number, or None), `bytes`, `modified` (seconds since 1970)
      and `next`, a sentence or a command.
    """
    from t2i_jax import runs

    files = [path for path in folder.rglob("*") if path.is_file()]
    entry = {"run": str(folder), "model": None, "step": None, "steps": None, "score": None}
    entry |= {"bytes": sum(path.stat().st_size for path in files)}
    entry |= {"modified": max(path.stat().st_mtime for path in files)}
    try:
        config, scores = runs.read_config(folder), runs.read_scores(folder)
    except UserError as error:
        return entry | {"next": str(error)}
    step = max([*runs.checkpoint_steps(folder), scores.pop("step", 0)])
    numbers = [(name, value) for name, value in scores.items() if isinstance(value, float)]
    entry |= {"model": config.model_name, "step": step, "steps": config.steps, "score": (numbers or [None])[0]}
    if (folder / runs.WEIGHTS).exists() and step >= config.steps:
        return entry | {"next": f"t2i {_way_on(config, folder)}"}
    return entry | {"next": "not finished; the command that trained it continues"}


def _way_on(config, folder: Path) -> str:
    """A command for a finished run: what draws is drawn from, an image tokenizer examined."""
    run = shlex.quote(str(folder))
    if config.sampling:
        caption = printable((config.get("shown_captions") or ["..."])[0])  # of a stranger's run anything
        return f"sample --run {run} --prompt {shlex.quote(caption)}"
    return f"sample --run {run}" if "latent" in config.model else f"doctor --run {run}"


def _broken(way_on: str) -> str:
    """A command in several lines, as a shell reads it, where it is too long for one."""
    if len(way_on) + 2 <= results.WIDTH:
        return way_on
    return way_on.replace(" --prompt ", " \\\n    --prompt ")


def _cells(entry: dict) -> list[str]:
    if entry["model"] is None:
        return ["unreadable", "", "", f"{entry['bytes'] / 1e6:.0f}", _age(entry["modified"])]
    name, value = entry["score"] or ("", None)
    score = f"{name} {value:.3g}" if name else ""
    step = f"{entry['step']}/{entry['steps']}"
    return [entry["model"], step, score, f"{entry['bytes'] / 1e6:.0f}", _age(entry["modified"])]


def _age(modified: float) -> str:
    seconds = max(1, time.time() - modified)
    unit, size = next((unit, size) for unit, size in UNITS if seconds >= size)
    return f"{seconds / size:.0f} {unit}"
