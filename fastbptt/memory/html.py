"""Tables in HTML, for notebooks: small, without styles or scripts, and with every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(caption: str, rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table of texts; the first cell of a row is its name."""
    lines = [f"<caption>{escape(caption)}</caption>"]
    if head:
        cells = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
        lines.append(f"<tr>{cells}</tr>")
    for name, *others in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        lines.append(f"<tr><th>{escape(str(name))}</th>{cells}</tr>")
    return "\n".join(["<table>", *lines, "</table>"])
