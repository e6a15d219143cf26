"""The `fastbptt` command line.

A command is a module of this folder, or of a folder in it, with a function
`add_command(commands)`. The function adds a parser whose defaults name the function to run. A new
command touches two files: its own, and COMMANDS here.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..arguments import MOST, shown
from . import info, options, plan, reach
from .bench import command as bench
from .demo import command as demo
from .online import command as online

COMMANDS = (bench, plan, reach, online, demo, info)
"""In the order of `fastbptt --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="fastbptt",
        description="Exact and truncated backpropagation through time within a memory budget.",
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    parser.set_defaults(needs_device=True)  # `info` overrides it
    for module in COMMANDS:
        module.add_command(commands)
    args = parser.parse_args(argv)
    try:
        options.check_environment(parser, args.needs_device)
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nfastbptt: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        _drop_output()
        return 141
    except (OSError, MemoryError) as error:
        try:
            sys.stdout.flush()
        except OSError:  # a full disk
            _drop_output()
        parser.error(str(error) or "there is not enough memory")


def _drop_output() -> None:
    """Let what is not written yet go nowhere, or Python would try again when it ends, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_LONGEST = 600  # characters of an error message


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error messages are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with status 2."""
        line = " ".join(message.split())
        if len(line) > _LONGEST:  # it may quote an argument of any length
            line = f"{line[:_LONGEST]}..."
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")
        raise AssertionError  # exit does not return

    @staticmethod
    def number(kind: type, least: float, most: float | None = None) -> Callable[[str], float]:
        """Return an argument type: an int or float from `least` to `most`.

        By default an int must fit into 64 bits, and a float must be finite.
        """
        if most is None:
            most = MOST if kind is int else sys.float_info.max

        def parse(text: str) -> float:
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not least <= value <= most:
                noun = "a whole number" if kind is int else "a number"
                expected = f"must be {noun} from {least} to {most}"
                raise argparse.ArgumentTypeError(f"{expected}, not {shown(text)}")
            return value

        return parse
