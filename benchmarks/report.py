"""Tables in Markdown of the JSON lines that benchmarks print, for `results.md`.

    python benchmarks/training.py | tee lines.jsonl
    python benchmarks/report.py lines.jsonl

One table for each `name`: `ratio` first where there is one, then the other fields in their order. Machine and
versions stand above it.
"""

import argparse
import itertools
import json
from pathlib import Path

ABOVE = ("name", "machine", "versions")


def table(lines: list[dict]) -> str:
    """Of lines of one name."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
    columns = sorted((name for name in columns if name not in ABOVE), key=lambda name: name != "ratio")
    rows = [columns, ["---"] * len(columns), *([line.get(name, "") for name in columns] for line in lines)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="LINES.jsonl")
    texts = (path.read_text() for path in parser.parse_args().files)
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
    for above, group in itertools.groupby(lines, lambda line: tuple(line[name] for name in ABOVE)):
        name, machine, versions = above
        print(f"### {name}\n\n{machine}; {versions}\n\n{table(list(group))}\n")


if __name__ == "__main__":
    main()
