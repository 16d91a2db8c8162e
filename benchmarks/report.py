"""Tables in Markdown of the JSON lines that benchmarks print, for `results.md`.

    python benchmarks/training.py | tee lines.jsonl
    python benchmarks/report.py lines.jsonl

One table for each `name`: `ratio` first where there is one, then the other fields in their order. Machine and
versions stand above it. `--png` draws the lines of `training.py` and `sampling.py`.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

ABOVE = ("name", "machine", "versions")


def table(lines: list[dict]) -> str:
    """Of lines of one name."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
    columns = sorted((name for name in columns if name not in ABOVE), key=lambda name: name != "ratio")
    rows = [columns, ["---"] * len(columns), *([line.get(name, "") for name in columns] for line in lines)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def draw(lines: list[dict], path: Path) -> None:
    """Seconds a training step by tokens and by batch, and tokens a second of sampling by images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    by_tokens, by_batch, sampling = figure.subplots(1, 3)
    for axes, varied, fixed in ((by_tokens, "tokens", "batch"), (by_batch, "batch", "tokens")):
        cases = [line for line in lines if line["name"] == "training"]
        usual = statistics.mode(line[fixed] for line in cases)
        cases = sorted((line for line in cases if line[fixed] == usual), key=lambda line: line[varied])
        rounded = [line for line in lines if line["name"] == "training_bfloat16" and line[fixed] == usual]
        rounded.sort(key=lambda line: line[varied])
        series = ("t2i_jax", cases, "ours"), ("t2i_jax, bfloat16", rounded, "ours"), ("torch", cases, "peer")
        for side, rows, field in series:
            axes.plot([line[varied] for line in rows], [line[field] for line in rows], "o-", label=side)
        axes.set(xlabel=f"{varied} ({fixed} {usual})", ylabel="seconds a training step", xlim=0, ylim=0)
    cases = sorted((line for line in lines if line["name"] == "sampling"), key=lambda line: line["images"])
    for side, bits, seconds in (
        ("t2i_jax", 32, "ours"),
        ("t2i_jax, int8", 8, "ours"),
        ("torch", 32, "peer"),
        ("float32 products alone", 32, "limit"),
    ):
        rows = [line for line in cases if line["weight_bits"] == bits]
        took = [line["ours"] * line["products"] if seconds == "limit" else line[seconds] for line in rows]
        rates = [line["images"] * line["tokens"] / seconds for line, seconds in zip(rows, took, strict=True)]
        sampling.plot([line["images"] for line in rows], rates, "--" if seconds == "limit" else "o-", label=side)
    sampling.set(xlabel="images at once", ylabel="tokens a second", ylim=0)
    sampling.set_xscale("log", base=2)
    for axes in (by_tokens, by_batch, sampling):
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="LINES.jsonl")
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    texts = (path.read_text() for path in arguments.files)
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
    for above, group in itertools.groupby(lines, lambda line: tuple(line[name] for name in ABOVE)):
        name, machine, versions = above
        print(f"### {name}\n\n{machine}; {versions}\n\n{table(list(group))}\n")
    if arguments.png:
        draw(lines, arguments.png)


if __name__ == "__main__":
    main()
