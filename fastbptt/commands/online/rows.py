"""Rows of numbers that come one by one: from a CSV file, from stdin, or from an .npy file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from ...layers.model import as_path
from ..reach import array_of


class Rows:
    """Rows of a stream.

    names : of the columns, where the stream has a head, else numbers
    """

    def __init__(self, path: str):
        self.path, self._file = path, None
        if path.endswith(".npy"):
            array = array_of(path)
            if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{path!r} must hold numbers (T, columns) or (T,), not {array.shape}"
                )
            self._rows: Iterator[Any] = iter(array if array.ndim == 2 else array[:, None])
            self.names = [str(n) for n in range(1 if array.ndim == 1 else array.shape[1])]
            return
        if path == "-":
            self._file = sys.stdin
        else:
            self._file = open(as_path(path), encoding="utf-8-sig", newline="")  # noqa: SIM115
        try:
            self._begin(self._lines(self._file))
        except BaseException:
            self.close()
            raise

    def _begin(self, lines: Iterator[list[str]]) -> None:
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{self.path!r} must hold at least one row")
        try:
            first[0] = first[0].removeprefix("\ufeff")  # a mark that stdin may begin with
            [float(text or "nan") for text in first]
        except ValueError:
            self.names, self._rows = first, lines
        else:
            self.names, self._rows = [str(n) for n in range(len(first))], chain([first], lines)

    def _lines(self, file: Iterable[str]) -> Iterator[list[str]]:
        try:
            for line in csv.reader(file):
                if line:
                    yield [text.strip() for text in line]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path!r} must be a table of numbers in text: {error}") from None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row, float64; NaN where a field is empty."""
        for number, row in enumerate(self._rows):
            if len(row) != len(self.names):
                raise ValueError(
                    f"row {number} of {self.path!r} must have {len(self.names)} columns, "
                    f"not {len(row)}"
                )
            try:
                yield np.array([float("nan" if text == "" else text) for text in row])
            except ValueError as error:
                raise ValueError(f"row {number} of {self.path!r}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stdin:
            self._file.close()


class Scale:
    """The mean and the standard deviation of each column so far (Welford 1962)."""

    def __init__(self, columns: int):
        self.count, self.mean = np.zeros(columns), np.zeros(columns)
        self.squares = np.zeros(columns)

    def add(self, row: np.ndarray) -> None:
        """Count a row; what is not finite is left out."""
        there = np.isfinite(row)
        self.count += there
        gap = np.where(there, row - self.mean, 0.0)
        self.mean += gap / np.maximum(self.count, 1)
        self.squares += gap * np.where(there, row - self.mean, 0.0)

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each column; 1 where there is none yet."""
        found = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(found > 0, found, 1.0)

    def scaled(self, row: np.ndarray) -> np.ndarray:
        """The row less the mean, over the deviation, at most 10 in size; NaN stays."""
        return np.clip((row - self.mean) / self.deviation, -10, 10)
