"""A language model of words in PyTorch, with and without `fastbptt.torch.accelerate`.

An embedding, two LSTM layers, and a decoder tied to the embedding (Press and Wolf 2017), trained by
truncated BPTT: the state is carried from one window to the next, and detached. The text is the
source of Python's standard library, which is on every machine. The same model is trained twice, by
torch.nn.LSTM and by fastbptt: to the same losses, at the two speeds that are printed.

    python examples/torch_language_model.py [--words 200000] [--width 128] [--memory full]
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from training import bar

import fastbptt.torch


class LanguageModel(torch.nn.Module):  # type: ignore[misc]
    """Scores of the next word after each word."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, width)
        torch.nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.lstm = torch.nn.LSTM(width, width, 2)
        self.decoder = torch.nn.Linear(width, words)
        self.decoder.weight = self.embedding.weight

    def forward(
        self, ids: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Scores (T, B, words) and the final state."""
        h, state = self.lstm(self.embedding(ids), state)
        return self.decoder(h), state


def read_words(count: int, vocabulary: int) -> tuple[torch.Tensor, int]:
    """The ids of `count` words of the standard library's source, and how many ids there are.

    The most frequent words have ids of their own, all others have id 0.
    """
    words: list[str] = []
    for path in sorted(Path(re.__file__).parent.parent.glob("*.py")):
        words += re.findall(r"\w+|[^\w\s]", path.read_text(encoding="utf-8", errors="replace"))
        if len(words) >= count:
            break
    words = words[:count]
    common = [word for word, _ in Counter(words).most_common(vocabulary - 1)]
    ids = {word: index + 1 for index, word in enumerate(common)}
    return torch.tensor([ids.get(word, 0) for word in words]), len(common) + 1


def train(model: LanguageModel, text: torch.Tensor, window: int, rate: float) -> list[float]:
    """One pass over the text (T, B); returns the mean loss of each window."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    state, losses = None, []
    for start in bar(range(0, len(text) - 1, window), "windows"):
        targets = text[start + 1 : start + 1 + window]
        scores, state = model(text[start : start + len(targets)], state)
        state = (state[0].detach(), state[1].detach())
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Train both ways, print losses and speeds; returns the loss of each window of both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--vocabulary", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--memory", default="full", help="what the gradient may take, as 64MB")
    given = parser.parse_args(arguments)
    ids, words = read_words(given.words, given.vocabulary)
    text = ids[: len(ids) // given.batch * given.batch].reshape(given.batch, -1).T.contiguous()
    print(f"words, of them known {len(ids):,}, {words:,}")
    results = {}
    for name in ("torch.nn", "fastbptt"):
        torch.manual_seed(0)
        model = LanguageModel(words, given.width)
        if name == "fastbptt":
            fastbptt.torch.accelerate(model, given.memory)
            print(f"recurrent layers     {model.lstm}")
        start = time.perf_counter()
        losses = results[name] = train(model, text, given.window, given.rate)
        seconds = time.perf_counter() - start
        few = max(1, len(losses) // 10)
        first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
        print(
            f"{name:20} loss a word {first:.3f} -> {last:.3f}, "
            f"{len(losses) / seconds:.1f} windows a second"
        )
    ours, theirs = results["fastbptt"], results["torch.nn"]
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"losses differ by     {apart:.1e} at most")
    return results


if __name__ == "__main__":
    main()
