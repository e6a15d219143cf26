"""Tables of text: aligned by spaces for a terminal, or in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (), indent: str = "") -> str:
    """Return the rows as lines with aligned columns, two spaces apart.

    Parameters
    ----------
    rows : of equally many cells, the head first where there is one
    left : numbers of the columns that are aligned at the left; the others are at the right
    indent : text before each line
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = ()
) -> list[str]:
    """Return the lines of a Markdown table; `left` is as for `aligned`."""
    rule = "|".join("---" if index in left else "--:" for index in range(len(head)))
    return [_row(head), f"|{rule}|", *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
