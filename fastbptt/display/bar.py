"""The progress bar of the commands."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A progress bar on stderr; a line every few seconds where stderr is no terminal."""

    def __init__(self, unit: str, total: float):
        from tqdm import tqdm

        shape = "{n:,.0f}/{total:,.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        self._bar: Any = tqdm(
            total=total,
            unit=unit,
            bar_format="  {percentage:3.0f}% |{bar:30}| " + shape,
            mininterval=0.1 if sys.stderr.isatty() else 5,
            leave=True,
        )

    def show(self, done: float, total: float, note: str = "") -> None:
        """Show `done` of `total` units, and a note behind them."""
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
