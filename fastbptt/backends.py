"""What the engine asks of a device: arrays there, copies to and fro, and its kernels.

Above this, nothing knows which device a call runs on.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from threading import local
from typing import Any

import numpy as np

from .kernels.cpu import dropout, recurrence, team
from .kernels.cpu.memory import Workspace, writable
from .kernels.cpu.weights import Weights
from .typing import Array, DType

MOVED_BYTES = 1 << 20  # that a GPU moves at a time within an array


class CPU:
    """NumPy arrays, and the kernels of `kernels.cpu`."""

    name = "cpu"
    on_gpu = False
    ahead = 2  # chunks that are in work at once, each with scratch of its own

    @property
    def xp(self) -> Any:
        """The module of arrays on the device."""
        return np

    def __enter__(self) -> None:
        """Make it the current device."""

    def __exit__(self, *error: object) -> None:
        """Go back to the device before."""

    def follow(self, stream: int | None) -> None:
        """Nothing: what is in memory is there."""

    def wait(self) -> None:
        """Let at most a little work be queued."""

    def here(self, array: Array) -> Array:
        """The array on this device, not copied if it is there."""
        return array

    def home(self, array: Array) -> Array:
        """The array as NumPy's, not copied if it is one."""
        return array

    def direct(self, array: Any) -> bool:
        """Whether kernels can read and write an array where it lies."""
        flags = getattr(array, "flags", None)
        return flags is not None and flags.c_contiguous and flags.aligned

    def writable(self, array: Array) -> Array:
        """An array that kernels can read where it lies, as they take it."""
        return writable(array)

    def fill(self, panel: Array, values: Array) -> None:
        """Copy values from anywhere into an array on this device."""
        np.copyto(panel, values)

    def move_down(self, rows: Array, shift: int, count: int) -> None:
        """Move rows shift..shift+count to the front."""
        # memmove: NumPy would copy an overlapping range aside first, as large as the range itself.
        source = rows[shift : shift + count]
        ctypes.memmove(rows.ctypes.data, source.ctypes.data, source.nbytes)

    def workspace(self) -> Any:
        """Scratch of one call."""
        return Workspace()

    def threads(self) -> int:
        """How many threads a call uses."""
        return team.get_num_threads()

    def weights(self, layer: Any, batch: int, workspace: Any) -> Any:
        """A layer's weights as `kernels.cpu.weights.Weights` has them."""
        return Weights(layer, workspace, self.threads())

    def recurrence(
        self, weights: Any, batch: int, chunk: int, workspace: Any, several: bool, ragged: bool
    ) -> Any:
        """The layer of these weights as `kernels.cpu.recurrence.Recurrence` has it."""
        return recurrence.Recurrence(weights, batch, chunk, workspace, self.threads(), several)

    def head(self, readout: Any, batch: int, workspace: Any, several: bool, ragged: bool) -> Any:
        """The readout as `kernels.cpu.recurrence.Head` has it."""
        return recurrence.Head(readout, batch, workspace, self.threads(), several)

    def no_head(self, dtype: DType) -> Any:
        """What `reverse` takes for `head` where there is no loss."""
        return recurrence.no_head(dtype)

    def lists(self, rows: int) -> Any:
        """Room to list so many rows that count."""
        return np.empty(rows, np.int64), np.empty(rows, np.int64), np.zeros(4, np.int64)

    def drop(
        self, out: Array, values: Array, key: Any, threshold: int, scale: float, start: int
    ) -> None:
        """`out`, which may be `values`, becomes those of them that dropout keeps."""
        mail, threads = team.hands(out.size * 4, self.threads())
        dropout.build_dropout()(
            mail, threads, out, values, key, np.uint64(threshold), scale, start
        )  # fmt: skip


class CUDA:
    """CuPy arrays, and the kernels of `kernels.cuda`; NumPy's for Numba's simulator.

    The work is queued on one stream: `stream`, the address of one, or CuPy's current one.
    """

    on_gpu = True
    ahead = 1

    def __init__(self, ordinal: int = 0, stream: int | None = None):
        from .kernels.cuda import cards, recurrence, seam, weights

        self.ordinal, self.stream = ordinal, stream
        self._seam, self._recurrence, self._cards = seam, recurrence, cards
        self._weights = weights
        self._here = _Here()

    @property
    def name(self) -> str:
        return f"cuda:{self.ordinal}"

    @property
    def xp(self) -> Any:
        return self._seam.arrays()

    @property
    def card(self) -> Any:
        """What the card is: `kernels.cuda.shapes.Card`."""
        return self._cards.card(self.ordinal)

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
        """Begin after what another package has queued on a stream of its own, if it has one."""
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
        return self._cards.free_bytes(self.ordinal)

    def wait(self) -> None:
        if self.xp is np:
            return
        event = self.xp.cuda.Event(block=True, disable_timing=True)
        event.record()
        events = self._here.events
        events.append(event)
        if len(events) > 2:  # the stretches before the last two are done
            events.pop(0).synchronize()

    def _elsewhere(self, array: Any) -> bool:
        return isinstance(array, np.ndarray) and self.xp is not np

    def here(self, array: Array) -> Array:
        return self.xp.asarray(array) if self._elsewhere(array) else array

    def home(self, array: Array) -> Array:
        return array if isinstance(array, np.ndarray) else array.get()

    def direct(self, array: Any) -> bool:
        flags = getattr(array, "flags", None)
        return flags is not None and flags.c_contiguous and not self._elsewhere(array)

    def writable(self, array: Array) -> Array:
        return array

    def fill(self, panel: Any, values: Array) -> None:
        if self._elsewhere(panel):
            panel[...] = self.home(values)
        elif self._elsewhere(values):
            panel.set(np.ascontiguousarray(values, panel.dtype))
        else:
            panel[...] = values

    def move_down(self, rows: Array, shift: int, count: int) -> None:
        if shift:
            step = max(1, MOVED_BYTES // max(1, rows[:1].nbytes))
            for start in range(0, count, step):  # a copy must not overlap where it comes from
                stop = min(count, start + step)
                rows[start:stop] = rows[start + shift : stop + shift].copy()

    def workspace(self) -> Any:
        return _Pool(self.xp)

    def weights(self, layer: Any, batch: int, workspace: Any) -> Any:
        return self._weights.Weights(layer, batch)

    def recurrence(
        self, weights: Any, batch: int, chunk: int, workspace: Any, several: bool, ragged: bool
    ) -> Any:
        return self._recurrence.Recurrence(weights, chunk, ragged)

    def head(self, readout: Any, batch: int, workspace: Any, several: bool, ragged: bool) -> Any:
        return self._recurrence.Head(readout, batch, ragged)

    def no_head(self, dtype: DType) -> Any:
        return None

    def lists(self, rows: int) -> Any:
        return None

    def drop(
        self, out: Array, values: Array, key: Any, threshold: int, scale: float, start: int
    ) -> None:
        self._recurrence.drop(out, values, key, threshold, scale, start)


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


Backend = CPU | CUDA
