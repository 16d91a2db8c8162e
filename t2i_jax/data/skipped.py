"""The report of what preparing a set skipped, because it could not be read: `skipped.json` beside the records."""

from pathlib import Path

from t2i_jax import files

FILE = "skipped.json"
NAMED = 3  # names for each reason that a line shows

Names = dict[str, list[str]]
"""What was skipped, by reason."""


def add(names: Names, reason: str, name: str) -> None:
    """Add a name to those of a reason."""
    names.setdefault(reason, []).append(printable(name))


def printable(name: str) -> str:
    """A name for people; one that would disturb a terminal, or is no UTF-8, as Python writes it."""
    return name if name.isprintable() else ascii(name)


def write(folder: str | Path, names: Names) -> None:
    """Write the names of what was skipped, by reason; nothing where there are none."""
    if names:
        files.write_json(Path(folder, FILE), {"skipped": names})


def describe(folder: str | Path) -> str:
    """The report `in_words`.

    Raises:
      CorruptError: the report is not what was written.
    """
    path = Path(folder, FILE)
    return in_words(files.read_json(path)["skipped"]) if path.exists() else ""


def in_words(names: Names) -> str:
    """`2 corrupt (a.jpg, b.jpg), 1 missing (c.jpg)`; empty where nothing was skipped."""
    return ", ".join(_shown(reason, own) for reason, own in names.items())


def _shown(reason: str, names: list[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return f"{len(names)} {reason} ({', '.join(names[:NAMED])}{more})"
