"""Progress bars: tqdm's, or lines of text where it is not installed."""

from __future__ import annotations

import sys
import time
from typing import Any

_PAUSE = 5  # seconds between lines where there is no terminal, or no tqdm


class Bar:
    """A progress bar on stderr; a line every few seconds where stderr is no terminal."""

    def __init__(self, unit: str, total: float):
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar: Any = _Lines(unit, total)
            return
        shape = "{n:,.0f}/{total:,.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(
            total=total,
            unit=unit,
            bar_format="  {percentage:3.0f}% |{bar:30}| " + shape,
            mininterval=0.1 if sys.stderr.isatty() else _PAUSE,
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


class _Lines:
    """What a Bar asks of tqdm, without it."""

    def __init__(self, unit: str, total: float):
        self.n, self.total = 0.0, total
        self._unit, self._note, self._next = unit, "", time.monotonic() + _PAUSE

    def set_postfix_str(self, note: str, refresh: bool) -> None:
        self._note = f", {note}"

    def update(self, more: float) -> None:
        self.n += more
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        share = 100 * self.n / self.total if self.total else 100
        text = f"  {share:3.0f}% {self.n:,.0f}/{self.total:,.0f} {self._unit}{self._note}"
        print(text, file=sys.stderr, flush=True)
