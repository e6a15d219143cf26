"""The CPU: NumPy arrays, and the kernels of `kernels.cpu`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..arrays import Array, DType
from ..kernels.cells.registry import CELLS
from ..kernels.cpu import describe, dropout, recurrence, split, team
from ..kernels.cpu.memory import Workspace, writable
from ..kernels.cpu.weights import Weights
from ..memory.blocking import BlockSizes, Footprint
from . import cpu_footprint, free_memory

_NOTHING = nullcontext()


class CPU:
    """The Backend of NumPy arrays: see `base.Backend` for what each method is asked for."""

    name = "cpu"
    ahead = 2
    compiled = True

    @property
    def threads(self) -> int:
        return team.get_num_threads()

    @property
    def xp(self) -> Any:
        return np

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def follow(self, stream: int | None) -> None:
        """Nothing: what is in memory is there."""

    def wait(self) -> None:
        """Nothing: a kernel returns when it is done."""

    def here(self, array: Array) -> Array:
        return array

    def home(self, array: Array) -> Array:
        return array

    def zero_copy(self, array: Any) -> bool:
        flags = getattr(array, "flags", None)
        return flags is not None and flags.c_contiguous and flags.aligned

    def writable(self, array: Array) -> Array:
        return writable(array)

    def copy_to(self, target: Array, values: Array) -> None:
        np.copyto(target, values)

    def workspace(self) -> Any:
        return Workspace()

    def one_thread_each(self, batch: int) -> bool:
        return split.flows(batch)

    def runs_ahead(self, layer: Any, batch: int) -> bool:
        threads, cell = team.get_num_threads(), CELLS[layer.cell]
        item = layer.dtype.itemsize
        return threads > 1 and split.gang_size(threads, cell, layer.hidden, batch, item) == 1

    def weights(self, layer: Any, batch: int, workspace: Any) -> Any:
        return Weights(layer, workspace, team.get_num_threads())

    def recurrence(
        self,
        weights: Any,
        batch: int,
        chunk: int,
        workspace: Any,
        multi_flush: bool,
        ragged: bool,
    ) -> Any:
        threads = team.get_num_threads()
        return recurrence.Recurrence(weights, batch, chunk, workspace, threads, multi_flush)

    def head(
        self, readout: Any, batch: int, workspace: Any, multi_flush: bool, ragged: bool
    ) -> Any:
        threads = team.get_num_threads()
        return recurrence.Head(readout, batch, workspace, threads, multi_flush)

    def indices(self, rows: int, resets: bool = False) -> Any:
        more = int(resets)
        return tuple(np.empty(n, np.int64) for n in (rows, rows * (1 + more), 4 + 2 * more))

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
        mailbox, threads = team.team_for(out.size * 4, team.get_num_threads())
        dropout.build_dropout()(
            mailbox, threads, out, values, key, np.uint64(threshold), scale, start, first
        )  # fmt: skip

    def footprint(
        self,
        layers: tuple[tuple[str, int, int], ...],
        outputs: int,
        read: int,
        item: int,
        total: int,
        batch: int,
    ) -> Footprint:
        # All that might work, so that a plan is the same with any number of threads. Two at least:
        # up to there it does not depend on the machine.
        threads = max(2, team.available_cpus())
        return cpu_footprint.footprint(layers, outputs, read, item, total, batch, threads)

    def free_bytes(self) -> int:
        return free_memory.free_bytes()

    def guard(
        self, needed: int | None = None, least: Callable[[], int] | None = None
    ) -> AbstractContextManager[None]:
        """Nothing: the system says when memory is short."""
        return _NOTHING

    def describe(
        self, stages: Sequence[Sequence[Any]], dtype: DType, batch: int, blocks: BlockSizes
    ) -> list[str]:
        lines = [
            f"call       {blocks.call_steps:,} steps a kernel call, to hear Ctrl-C between two; in "
            f"chunks of {blocks.chunk:,}, whose scratch stays in a core's cache"
        ]
        for stage in stages:
            for layers in stage:
                for shape in layers:
                    lines += describe.lines(shape, batch, dtype, stage)
        return lines
