"""Text in columns, for tables of figures in the log."""

from __future__ import annotations

from collections.abc import Container, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Joins rows of cells, all of one length, to lines with aligned columns.

    Args:
      rows: the cells.
      right: numbers of the columns that are aligned at their right; others are at their left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        lines.append('  '.join(cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in cells))
    return '\n'.join(line.rstrip() for line in lines)
