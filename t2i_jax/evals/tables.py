"""Plain tables for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from t2i_jax.evals import intervals

WIDTH = 80  # of a terminal, which a table fits into where its cells allow it
LEAST = 24  # columns for the names of rows, whatever stands beside them


def format_shares(
    title: str,
    columns: Mapping[str, Mapping[str, float]],
    of_columns: Mapping[str, Mapping[str, intervals.Interval]],
    rows: Sequence[str],
    rules: Sequence[int] = (),
) -> str:
    """A table of scores, half of their 95% interval behind them; "-" where there is no score.

    Args:
      title, rules: see `format_table`.
      columns: scores by the names of their rows.
      of_columns: their intervals, where there are any.
      rows: names.
    """
    cells = {
        row: [
            intervals.cell(scores[row], of_columns.get(column, {}).get(row)) if row in scores else "-"
            for column, scores in columns.items()
        ]
        for row in rows
    }
    return format_table(title, list(columns), cells, rules)


def format_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], rules: Sequence[int] = ()
) -> str:
    """A table: names of rows to the left, cells right under the names of their columns.

    Names are broken into several lines where the table were too wide otherwise.

    Args:
      title: over the names of the rows.
      columns: names.
      rows: cells, one a column, by the name of the row.
      rules: rows, counted from 0, above which a line is drawn.
    """
    cells = [max(len(own[i]) for own in rows.values()) for i in range(len(columns))]
    widths = [max(len(column), width) for column, width in zip(columns, cells, strict=True)]
    first = max(len(title), *map(len, rows))
    if first + sum(2 + width for width in widths) > WIDTH:
        words = [max(map(len, column.split())) for column in columns]
        widths = [max(pair) for pair in zip(words, cells, strict=True)]
        first = min(first, max(LEAST, WIDTH - sum(2 + width for width in widths)))

    def line(name, cells):
        return "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]).rstrip()

    heads = [textwrap.wrap(column, width) for column, width in zip(columns, widths, strict=True)]
    height = max(map(len, heads))
    heads = [[""] * (height - len(head)) + head for head in heads]
    titles = [""] * (height - 1) + [title]
    lines = [line(*pair) for pair in zip(titles, zip(*heads, strict=True), strict=True)]
    for number, (name, own) in enumerate(rows.items()):
        if number in rules:
            lines.append("-" * (first + sum(2 + width for width in widths)))
        start, *rest = textwrap.wrap(name, first) or [""]
        lines += [line(start, own), *rest]
    return "\n".join(lines)
