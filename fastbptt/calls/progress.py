"""The progress of a call: a bar, or a caller's own callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .. import arguments
from ..engine.lanes import ProgressCallback
from ..kernels import optional

Progress: TypeAlias = "bool | ProgressCallback | None"


def reporter(progress: Progress) -> tuple[ProgressCallback | None, Callable[[], object]]:
    """Return the callable to report to, or None, and what to call at the end."""
    if progress is None or progress is False:
        return None, lambda: None
    if progress is True:
        tqdm = optional.load("tqdm", "progress=True needs", "pip install 'fastbptt[cli]'")
        bar = tqdm.tqdm(unit="step", unit_scale=True)

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return report, bar.close
    if not callable(progress):
        raise TypeError(
            f"progress must be True or a callable (done, total), not {arguments.describe(progress)}"
        )
    return progress, lambda: None
