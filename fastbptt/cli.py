"""The `fastbptt` command: each command is a file of `commands`, and adds its own parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .commands import bench, demo, info, plan, reach


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="fastbptt",
        description="Exact and truncated backpropagation through time within a memory budget.",
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for module in (bench, plan, reach, demo, info):
        module.add_command(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("\nfastbptt: interrupted", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")
        raise AssertionError  # exit does not return

    @staticmethod
    def number(kind: type, least: float) -> Callable[[str], float]:
        """Return an argument type: an int or float of at least `least`."""

        def parse(text: str) -> float:
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not least <= value < float("inf"):
                noun = "a whole number" if kind is int else "a number"
                raise argparse.ArgumentTypeError(f"must be {noun} from {least} up, not {text!r}")
            return value

        return parse
