"""A schedule's rows as blocks of numbers, which compiled code carries out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from ..arrays import Array
from ..kernels.cpu.rows import MOST, build_rows
from ..kernels.cpu.slots import ACTIONS
from ..memory.optimal import Tables
from ..memory.schedules import Action, TreeSchedule

BLOCK = 256  # rows that are handed over at a time


def row_blocks(rows: Iterable[Action]) -> Iterator[Array]:
    """The rows as numbers (n, 4), some at a time."""
    tables = rows.tree.tables() if isinstance(rows, TreeSchedule) else None
    if isinstance(rows, TreeSchedule) and tables is not None:
        yield from _tree_blocks(rows, tables)
        return
    actions = iter(rows)
    while True:
        block = array("q")
        for name, *times in islice(actions, BLOCK):
            block.extend((ACTIONS[name], *times, 0, 0)[:4])
        if not block:
            return
        yield np.frombuffer(block, np.int64).reshape(-1, 4)


def _tree_blocks(rows: TreeSchedule, tables: Tables) -> Iterator[Array]:
    make, (P, low, high) = build_rows(), tables
    place, done = np.array([0, 0, rows.steps, rows.tree.recomputes, 0]), rows.done
    ends, turns = np.empty(len(P), np.int64), np.empty(len(P), np.int64)
    block = np.zeros((max(BLOCK, MOST), 4), np.int64)
    while count := make(place, ends, turns, P, low, high, block):
        if count > done:
            yield block[done:count]
        done = max(0, done - count)
