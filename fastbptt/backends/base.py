"""What the engine asks of a device: arrays there, copies to and fro, kernels, bytes, and words.

A device is a file that fulfils `Backend`, and one for its footprint. Above this folder, nothing
asks which device a call runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..arrays import Array, DType
from ..memory.blocking import BlockSizes, Footprint


class Backend(Protocol):
    """A device on which calls run. As a context manager it is the current device.

    ahead : chunks that are in work at once, each with scratch of its own
    compiled : whether compiled code carries out schedules; else Python launches each kernel
    """

    ahead: int
    compiled: bool

    @property
    def threads(self) -> int:
        """How many threads of the processor a call uses."""
        ...

    @property
    def name(self) -> str:
        """The name by which a caller asks for it: "cpu", "cuda:0"."""
        ...

    @property
    def xp(self) -> Any:
        """The module of arrays on the device: NumPy or CuPy."""
        ...

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    # Arrays.

    def follow(self, stream: int | None) -> None:
        """Begin after what another package has queued on a stream of its own, if it has one."""
        ...

    def wait(self) -> None:
        """Let at most a little work be queued."""
        ...

    def here(self, array: Array) -> Array:
        """The array on this device, not copied if it is there."""
        ...

    def home(self, array: Array) -> Array:
        """The array as NumPy's, not copied if it is one."""
        ...

    def zero_copy(self, array: Any) -> bool:
        """Whether kernels can read and write an array where it lies."""
        ...

    def writable(self, array: Array) -> Array:
        """An array that kernels can read where it lies, as they take it."""
        ...

    def copy_to(self, target: Array, values: Array) -> None:
        """Copy values from anywhere into an array on this device."""
        ...

    def workspace(self) -> Any:
        """Scratch of one call: `empty(shape, dtype)` and, at its end, `release()`."""
        ...

    # Kernels.

    def one_thread_each(self, batch: int) -> bool:
        """Whether two sweeps of so many sequences go at once, each as the work of one thread."""
        ...

    def runs_ahead(self, layer: Any, batch: int) -> bool:
        """Whether a leaf of a recurrent layer is run while the one before it is gone back over.

        It may be where the footprint has room for it.
        """
        ...

    def weights(self, layer: Any, batch: int, workspace: Any) -> Any:
        """A layer's weights as kernels read them, which no kernel writes.

        `hold(tokens, runs)` packs all that ways back read, so that the caller's arrays may change.
        """
        ...

    def recurrence(
        self,
        weights: Any,
        batch: int,
        chunk: int,
        workspace: Any,
        multi_flush: bool,
        ragged: bool,
    ) -> Any:
        """The passes over time of a layer with these weights, and its running gradients.

        Parameters
        ----------
        weights : from `weights`; batch : B; chunk : steps of scratch
        workspace : where its memory comes from
        multi_flush : whether gradients may add up over more than one flush
        ragged : whether sequences may end before T
        """
        ...

    def head(
        self, readout: Any, batch: int, workspace: Any, multi_flush: bool, ragged: bool
    ) -> Any:
        """The readout, and the loss of its outputs."""
        ...

    def indices(self, rows: int, resets: bool = False) -> Any:
        """Room for the indices of so many rows that count; `resets`: whether there are any."""
        ...

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
        """`out`, which may be `values`, becomes those of them that dropout keeps."""
        ...

    # Bytes and words.

    def footprint(
        self,
        layers: tuple[tuple[str, int, int], ...],
        outputs: int,
        read: int,
        item: int,
        total: int,
        batch: int,
    ) -> Footprint:
        """Bound the bytes for layers (cell, hidden, inputs) that run together.

        The readout of the top one, if any, has `outputs` outputs and reads `read` states; `item`
        is the bytes of a number.
        """
        ...

    def free_bytes(self) -> int:
        """Bytes that this process may still allocate there."""
        ...

    def guard(
        self, needed: int | None = None, least: Callable[[], int] | None = None
    ) -> AbstractContextManager[None]:
        """Have a call raise, at once or later, if the device lacks the bytes for it.

        `least()` is the least budget with which it would work.
        """
        ...

    def describe(
        self, stages: Sequence[Sequence[Any]], dtype: DType, batch: int, blocks: BlockSizes
    ) -> list[str]:
        """Which kernel, split and tile layers would meet, in lines of text.

        stages : for each stage and each of its directions, (cell, hidden, inputs) of the layers
        """
        ...


class Launching(Backend, Protocol):
    """A device whose kernels Python launches, span by span: `compiled` is false."""

    def move_down(self, rows: Array, shift: int, count: int) -> None:
        """Move rows shift..shift+count to the front."""
        ...

    def no_head(self, dtype: DType) -> Any:
        """What a recurrence's `reverse` takes for `head` where there is no loss."""
        ...
