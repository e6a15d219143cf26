"""Ragged sequences in PyTorch: which file of the standard library is a line from?

A bidirectional GRU reads each line letter by letter, from the first to the last and back, and a
linear layer on its two final states names the file. Lines have from 20 to some 100 letters. They
are packed: a PackedSequence, which PyTorch's own layers take too, holds no padding, and goes in and
out in the same way with and without `fastbptt.torch.accelerate`. Both are trained here on the same
batches, to the same losses.

    python examples/torch_lines.py [--lines 1500] [--epochs 6]
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from training import bar

import fastbptt.torch

FILES = ("argparse", "inspect", "tarfile", "turtle")


class Classifier(torch.nn.Module):  # type: ignore[misc]
    """Scores of the files for packed lines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letters = torch.nn.Embedding(128, 16)
        self.gru = torch.nn.GRU(16, width, bidirectional=True)
        self.files = torch.nn.Linear(2 * width, len(FILES))

    def forward(self, lines: PackedSequence) -> torch.Tensor:
        """(B, files); a packed sequence holds the letters of all lines in `data`."""
        _, final = self.gru(lines._replace(data=self.letters(lines.data)))
        return self.files(torch.cat([final[0], final[1]], 1))


def read_lines(count: int) -> list[tuple[torch.Tensor, int]]:
    """Up to `count` lines of each file in a fixed order: the letters (T,), and the file."""
    found = []
    for index, name in enumerate(FILES):
        path = Path(re.__file__).parent.parent / f"{name}.py"
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = {line.strip() for line in text.splitlines() if len(line.strip()) >= 20}
        letters = [line.encode("ascii", "replace") for line in sorted(lines)]
        random.Random(index).shuffle(letters)
        found += [(torch.tensor(list(line)), index) for line in letters[:count]]
    random.Random(0).shuffle(found)
    return found


def packed(lines: list[tuple[torch.Tensor, int]]) -> tuple[PackedSequence, torch.Tensor]:
    """A batch of lines and their files."""
    letters = pack_sequence([own for own, _ in lines], enforce_sorted=False)
    return letters, torch.tensor([index for _, index in lines])


def train(
    model: Classifier, batches: list[tuple[PackedSequence, torch.Tensor]], epochs: int, rate: float
) -> list[float]:
    """All batches in order, `epochs` times; returns the loss of each update."""
    optimizer, losses = torch.optim.Adam(model.parameters(), rate), []
    for _ in bar(range(epochs), "epochs"):
        for lines, files in batches:
            loss = torch.nn.functional.cross_entropy(model(lines), files)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Train both ways and report; returns the losses of both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1500, help="of each file, at most")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    given = parser.parse_args(arguments)
    lines = read_lines(given.lines)
    unseen, seen = lines[: len(lines) // 5], lines[len(lines) // 5 :]
    batches = [packed(seen[k : k + given.batch]) for k in range(0, len(seen), given.batch)]
    lengths = [len(line) for line, _ in lines]
    print(f"lines                {len(lines):,} of {min(lengths)} to {max(lengths)} letters")
    results = {}
    for name in ("torch.nn", "fastbptt"):
        torch.manual_seed(0)
        model = Classifier(given.width)
        if name == "fastbptt":
            fastbptt.torch.accelerate(model)
        start = time.perf_counter()
        losses = results[name] = train(model, batches, given.epochs, given.rate)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            letters, files = packed(unseen)
            right = (model(letters).argmax(1) == files).float().mean().item()
        print(
            f"{name:20} loss {losses[0]:.3f} -> {losses[-1]:.3f}, {right:.0%} of unseen lines "
            f"right, {len(losses) / seconds:.1f} updates a second"
        )
    ours, theirs = results["fastbptt"], results["torch.nn"]
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"losses differ by     {apart:.1e} at most")
    return results


if __name__ == "__main__":
    main()
