"""Plain tables for a terminal."""

from collections.abc import Mapping, Sequence

from t2i_jax.evals import intervals


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

    Args:
      title: over the names of the rows.
      columns: names.
      rows: cells, one a column, by the name of the row.
      rules: rows, counted from 0, above which a line is drawn.
    """
    widths = [max(len(column), *(len(cells[i]) for cells in rows.values())) for i, column in enumerate(columns)]
    first = max(len(title), *map(len, rows))

    def line(name, cells):
        return "  ".join(
            [name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))]
        )

    lines = [line(title, columns)]
    for number, (name, cells) in enumerate(rows.items()):
        if number in rules:
            lines.append("-" * len(lines[0]))
        lines.append(line(name, cells))
    return "\n".join(lines)
