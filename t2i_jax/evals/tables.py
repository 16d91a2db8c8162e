"""Plain tables for a terminal."""

from collections.abc import Mapping, Sequence


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
