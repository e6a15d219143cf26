"""Shared by the examples: a progress bar if tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def bar(steps: Iterable[int], name: str) -> Iterator[int]:
    """Yield the steps, with a progress bar if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from steps
        return
    yield from tqdm(steps, desc=name, mininterval=0.5)
