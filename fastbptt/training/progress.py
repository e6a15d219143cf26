"""What is told of the progress of a training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from .. import arguments
from ..calls.progress import Progress
from ..display.bar import Bar


def progress_of(
    progress: Progress, total: int
) -> AbstractContextManager[Callable[[float, str], object]]:
    """What is told of the progress: `show(done, note)`."""
    if progress is None or progress is False:
        return nullcontext(lambda done, note: None)
    if progress is not True:
        if not callable(progress):
            raise TypeError(
                "progress must be True or a callable (done, total), "
                f"not {arguments.describe(progress)}"
            )
        return nullcontext(lambda done, note: progress(int(done), total))
    return _ShownBar(total)


class _ShownBar:
    def __init__(self, total: int):
        self._bar, self._total = Bar("positions", total), total

    def __enter__(self) -> Callable[[float, str], object]:
        self._bar.__enter__()
        return lambda done, note: self._bar.show(done, self._total, note)

    def __exit__(self, kind: type | None, *others: object) -> None:
        self._bar.__exit__(kind, *others)
