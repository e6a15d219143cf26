"""The memory of a GPU: a call that does not fit says so, and says what would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .backends import Backend
from .memory import human


class DeviceMemoryError(MemoryError):
    """A call needs more memory than a GPU has free.

    `needed` and `free` are bytes; `budget` is a `memory=` with which bptt would fit, or None.
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
            return f"{text}; bptt would fit with memory={self.budget} ({human(self.budget)})"
        if self.least is not None:
            return f"{text}; the least budget that works is {self.least} ({human(self.least)})"
        return f"{text}; bptt with a budget of bytes, memory=, takes less"


_SHARE = 0.9  # of what is free, that a budget may take: pools round up


@contextmanager
def room_for(
    device: Backend, needed: int | None = None, least: int | None = None
) -> Iterator[None]:
    """Raise DeviceMemoryError, before or in a call, if the GPU has not the bytes that it needs.

    `least`: the least budget with which bptt would work.
    """
    if not device.on_gpu:
        yield
        return

    def error() -> DeviceMemoryError:
        free = device.free_bytes()
        budget = int(_SHARE * free)
        fits = least is not None and least <= budget
        return DeviceMemoryError(device.name, needed, free, budget if fits else None, least)

    if needed is not None and needed > device.free_bytes():
        raise error()
    try:
        yield
    except device.out_of_memory as caught:
        failed: BaseException = caught.with_traceback(None)  # which holds arrays
    else:
        return
    raise error() from failed
