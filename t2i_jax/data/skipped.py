"""The report of what preparing a set skipped, because it could not be read: `skipped.json` beside the records."""

from pathlib import Path

from t2i_jax import files

FILE = "skipped.json"
NAMED = 3  # names for each reason that a line shows


def write(folder: str | Path, names: dict[str, list[str]]) -> None:
    """Write the names of what was skipped, by reason; nothing where there are none."""
    if names:
        files.write_json(Path(folder, FILE), {"skipped": names})


def describe(folder: str | Path) -> str:
    """The report in a few words, `2 corrupt (a.jpg, b.jpg), 1 missing (c.jpg)`; empty where nothing was skipped.

    Raises:
      CorruptError: the report is not what was written.
    """
    path = Path(folder, FILE)
    if not path.exists():
        return ""
    return ", ".join(_shown(reason, names) for reason, names in files.read_json(path)["skipped"].items())


def _shown(reason: str, names: list[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return f"{len(names)} {reason} ({', '.join(names[:NAMED])}{more})"
