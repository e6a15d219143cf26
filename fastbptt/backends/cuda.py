"""A GPU: CuPy arrays, and the kernels of `kernels.cuda`; NumPy's arrays for Numba's simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from threading import local
from typing import Any

import numpy as np

from ..arrays import Array, DType
from ..kernels.cuda import describe, gpus, recurrence, runtime
from ..kernels.cuda.weights import Weights
from ..memory.blocking import BlockSizes, Footprint
from . import cuda_footprint
from .cuda_footprint import MOVED_BYTES
from .device_memory import guard


class CUDA:
    """The Backend of a GPU: see `base.Backend` for what each method is asked for.

    The work is queued on one stream: `stream`, the address of one, or CuPy's current one.
    """

    ahead = 1
    compiled = False
    threads = 1

    def __init__(self, ordinal: int = 0, stream: int | None = None):
        self.ordinal, self.stream = ordinal, stream
        self._here = _Here()

    @property
    def name(self) -> str:
        return f"cuda:{self.ordinal}"

    @property
    def xp(self) -> Any:
        return runtime.arrays()

    def __enter__(self) -> None:
        with ExitStack() as stack:
            if self.xp is not np:
                cuda = self.xp.cuda
                stack.enter_context(cuda.Device(self.ordinal))
                if self.stream is not None:
                    before, own = cuda.get_current_stream(), self._stream(self.stream)
                    own.wait_event(before.record())  # arrays may have been made there
                    stack.callback(lambda: before.wait_event(own.record()))  # or be read there
                    stack.enter_context(own)
            self._here.contexts.append(stack.pop_all())

    def _stream(self, address: int) -> Any:
        stream = self.xp.cuda.Stream
        return stream.from_external(_Foreign(address)) if address else stream.null

    def follow(self, stream: int | None) -> None:
        if stream is not None and self.xp is not np:
            self.xp.cuda.get_current_stream().wait_event(self._stream(stream).record())

    def __exit__(self, *error: object) -> None:
        self._here.events.clear()
        self._here.contexts.pop().close()

    @property
    def out_of_memory(self) -> Any:
        """The error that an allocation may raise."""
        return MemoryError if self.xp is np else self.xp.cuda.memory.OutOfMemoryError

    def free_bytes(self) -> int:
        """Bytes that can be allocated."""
        return gpus.free_bytes(self.ordinal)

    def wait(self) -> None:
        if self.xp is np:
            return
        event = self.xp.cuda.Event(block=True, disable_timing=True)
        event.record()
        events = self._here.events
        events.append(event)
        if len(events) > 2:  # the calls before the last two are done
            events.pop(0).synchronize()

    def _elsewhere(self, array: Any) -> bool:
        return isinstance(array, np.ndarray) and self.xp is not np

    def here(self, array: Array) -> Array:
        return self.xp.asarray(array) if self._elsewhere(array) else array

    def home(self, array: Array) -> Array:
        return array if isinstance(array, np.ndarray) else array.get()

    def zero_copy(self, array: Any) -> bool:
        flags = getattr(array, "flags", None)
        return flags is not None and flags.c_contiguous and not self._elsewhere(array)

    def writable(self, array: Array) -> Array:
        return array

    def copy_to(self, target: Any, values: Array) -> None:
        if self._elsewhere(target):
            target[...] = self.home(values)
        elif self._elsewhere(values):
            target.set(np.ascontiguousarray(values, target.dtype))
        else:
            target[...] = values

    def move_down(self, rows: Array, shift: int, count: int) -> None:
        if shift:
            step = max(1, MOVED_BYTES // max(1, rows[:1].nbytes))
            for start in range(0, count, step):  # a copy must not overlap where it comes from
                stop = min(count, start + step)
                rows[start:stop] = rows[start + shift : stop + shift].copy()

    def workspace(self) -> Any:
        return _Pool(self.xp)

    def one_thread_each(self, batch: int) -> bool:
        return False

    def runs_ahead(self, layer: Any, batch: int) -> bool:
        return False

    def weights(self, layer: Any, batch: int, workspace: Any) -> Any:
        return Weights(layer, batch)

    def recurrence(
        self,
        weights: Any,
        batch: int,
        chunk: int,
        workspace: Any,
        multi_flush: bool,
        ragged: bool,
    ) -> Any:
        return recurrence.Recurrence(weights, chunk, ragged)

    def head(
        self, readout: Any, batch: int, workspace: Any, multi_flush: bool, ragged: bool
    ) -> Any:
        return recurrence.Head(readout, batch, ragged)

    def no_head(self, dtype: DType) -> Any:
        return None

    def indices(self, rows: int, resets: bool = False) -> Any:
        return None

    def drop(
        self,
        out: Array,
        values: Array,
        key: Any,
        threshold: int,
        scale: float,
        start: int,
        first: int,
    ) -> None:
        recurrence.drop(out, values, key, threshold, scale, start, first)

    def footprint(
        self,
        layers: tuple[tuple[str, int, int], ...],
        outputs: int,
        read: int,
        item: int,
        total: int,
        batch: int,
    ) -> Footprint:
        return cuda_footprint.footprint(self.ordinal, layers, outputs, read, item, total, batch)

    def guard(
        self, needed: int | None = None, least: Callable[[], int] | None = None
    ) -> AbstractContextManager[None]:
        return guard(self, needed, least)

    def describe(
        self, stages: Sequence[Sequence[Any]], dtype: DType, batch: int, blocks: BlockSizes
    ) -> list[str]:
        lines = [f"call       {blocks.call_steps:,} steps a launch, to hear Ctrl-C between two"]
        for cell, hidden, _ in (shape for stage in stages for layers in stage for shape in layers):
            lines += describe.lines(cell, hidden, batch, dtype, self.ordinal)
        return lines


class _Here(local):
    """What a thread has entered and queued: it has a current device and stream of its own."""

    def __init__(self) -> None:
        self.contexts: list[ExitStack] = []
        self.events: list[Any] = []


class _Foreign:
    """A stream of another package, by the protocol that CuPy reads."""

    def __init__(self, address: int):
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class _Pool:
    """Scratch out of CuPy's own pool, which holds what is freed for the next call."""

    def __init__(self, xp: Any):
        self.empty = xp.empty

    def release(self) -> None:
        """Nothing: what is no longer referred to is free."""
