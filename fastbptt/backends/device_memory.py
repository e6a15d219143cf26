"""The memory of a GPU: a call that does not fit says so, and says what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..memory.plan import human


class DeviceMemoryError(MemoryError):
    """A call needs more memory than a GPU has free.

    `needed` and `free` are bytes; `budget` is a `memory=` with which it would fit, or None.
    """

    def __init__(
        self, device: str, needed: int | None, free: int, budget: int | None, least: int | None
    ) -> None:
        super().__init__(device, needed, free, budget, least)
        self.device, self.needed, self.free = device, needed, free
        self.budget, self.least = budget, least

    def __str__(self) -> str:
        need = "" if self.needed is None else f"{self.needed} bytes ({human(self.needed)}) of "
        text = f"the call needs {need}memory on {self.device}, where {human(self.free)} are free"
        if self.budget is not None:
            return f"{text}; it would fit with memory={self.budget} ({human(self.budget)})"
        if self.least is not None:
            return f"{text}; the least budget that works is {self.least} ({human(self.least)})"
        return f"{text}; bptt and forward with a budget of bytes, memory=, take less"


_SHARE = 0.9  # of what is free, that a budget may take: pools round up


class _Card(Protocol):
    """What is asked of a device here."""

    @property
    def name(self) -> str: ...

    @property
    def out_of_memory(self) -> Any: ...

    def free_bytes(self) -> int: ...


@contextmanager
def guard(
    device: _Card, needed: int | None = None, least: Callable[[], int] | None = None
) -> Iterator[None]:
    """Have a call raise DeviceMemoryError, at once or later, if the GPU lacks the bytes for it.

    `least()` is the least budget with which it would work.
    """

    def error() -> DeviceMemoryError:
        free = device.free_bytes()
        budget = int(_SHARE * free)
        least_bytes = None if least is None else least()
        fits = least_bytes is not None and least_bytes <= budget
        return DeviceMemoryError(device.name, needed, free, budget if fits else None, least_bytes)

    if needed is not None and needed > device.free_bytes():
        raise error()
    try:
        yield
    except device.out_of_memory as caught:
        failed: BaseException = caught.with_traceback(None)  # which holds arrays
    else:
        return
    raise error() from failed
