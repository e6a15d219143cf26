"""The `fastbptt` command: each command is a file of `commands`, and adds its own parser."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .arguments import MOST, shown
from .commands import bench, demo, info, options, plan, reach


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
        options.check_environment(parser, runs=args.command != "info")
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nfastbptt: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, MemoryError) as error:
        parser.error(str(error) or "there is not enough memory")


_LONGEST = 600  # characters of a complaint


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        line = " ".join(message.split())
        if len(line) > _LONGEST:  # it may hold what was given, whatever that was
            line = f"{line[:_LONGEST]}..."
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")
        raise AssertionError  # exit does not return

    @staticmethod
    def number(kind: type, least: float, most: float | None = None) -> Callable[[str], float]:
        """Return an argument type: an int or float from `least` to `most`.

        By default an int must fit into 64 bits, and a float be finite.
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
                due = f"must be {noun} from {least} to {most}"
                raise argparse.ArgumentTypeError(f"{due}, not {shown(text)}")
            return value

        return parse
