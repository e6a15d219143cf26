"""The `fastbptt` command: one function a command, each adding its own parser."""

import argparse
import sys

from . import demo, info

CELLS = {"rnn": "RNN", "lstm": "LSTM"}


def main(argv=None):
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="fastbptt",
        description="Exact and truncated backpropagation through time within a memory budget.",
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo.add_command(commands)
    add_plan(commands)
    info.add_command(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nfastbptt: interrupted", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line."""

    def error(self, message):
        """Say what is wrong, and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")

    @staticmethod
    def number(kind, least):
        """Return an argument type: an int or float of at least `least`."""

        def parse(text):
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not least <= value < float("inf"):
                noun = "a whole number" if kind is int else "a number"
                raise argparse.ArgumentTypeError(f"must be {noun} from {least} up, not {text!r}")
            return value

        return parse


def add_plan(commands):
    """Add `plan` to the command line."""
    parser = commands.add_parser(
        "plan",
        help="what memory costs in time, for given sizes",
        description="What one gradient would need: with --memory the plan for that budget, "
        "otherwise the frontier of memory against recomputation. Nothing is run.",
    )
    whole = parser.number(int, 1)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("-T", "--steps", type=whole, default=10**6)
    parser.add_argument("-B", "--batch", type=whole, default=1)
    parser.add_argument("-I", "--inputs", type=whole, default=64)
    parser.add_argument("-H", "--hidden", type=whole, default=256)
    parser.add_argument("-O", "--outputs", type=whole, default=64)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--memory", help='a budget such as "64MB", or "full"')
    parser.set_defaults(run=lambda args: run_plan(parser, args))


def run_plan(parser, args):
    """Print a plan or the frontier."""
    import fastbptt as fb

    layer = getattr(fb, CELLS[args.cell]).init(args.inputs, args.hidden, dtype=args.dtype)
    readout = fb.Readout.init(args.hidden, args.outputs, dtype=args.dtype)
    network = fb.Network(layer, readout)
    if args.memory is None:
        print(fb.frontier(network, args.steps, args.batch))
        return 0
    memory = int(args.memory) if args.memory.isdecimal() else args.memory
    try:
        print(fb.plan(network, args.steps, args.batch, memory=memory))
    except ValueError as error:
        parser.error(str(error))
    return 0
