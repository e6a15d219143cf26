"""`fastbptt plan`: memory against time for a network of given sizes; nothing is run."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any

from ..layers.drawing import UNDRAWN
from . import options

_MOST_DRAWN = 1_000_000  # actions in a picture


def add_command(commands: Any) -> None:
    """Add `plan` to the command line."""
    parser = commands.add_parser(
        "plan",
        help="what memory costs in time, for given sizes",
        description="What one gradient would need: with --memory the plan for that budget, "
        "otherwise the frontier of memory against recomputation. Nothing is run.",
    )
    steps = {"type": parser.number(int, 1), "default": 10**6, "help": "default: 1000000"}
    parser.add_argument("-T", "--steps", **steps)
    options.add_network(parser, batch=1, inputs=64, hidden=256, outputs=64)
    parser.add_argument("--memory", help='a budget such as "64MB", or "full"')
    parser.add_argument(
        "--out",
        type=options.new_file,
        metavar="PICTURE.png",
        help="draw the frontier and, with --memory, in which order the steps are run",
    )
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Print a plan or the frontier, and draw it if asked to."""
    import fastbptt as fb

    plan = None
    try:
        network = options.network(args, UNDRAWN)
        if args.memory is not None:
            memory = f"{args.memory}B" if args.memory.isdecimal() else args.memory
            plan = fb.plan(network, args.steps, args.batch, memory=memory)
        rows = fb.frontier(network, args.steps, args.batch)
    except ValueError as error:
        parser.error(str(error))
    if args.out is not None and not options.has_extras("plan --out", "matplotlib"):
        return 1
    if args.out is not None and plan is not None and _has_more_actions(plan, _MOST_DRAWN):
        parser.error(
            f"argument --out: a schedule of more than {_MOST_DRAWN:,} actions is not drawn; "
            "give more memory, or no --memory to draw the frontier alone"
        )
    print(rows if plan is None else plan)
    if args.out is None:
        return 0
    from .plan_picture import draw

    sizes = f"B={args.batch:,}, I={args.inputs:,}, H={args.hidden:,}, O={args.outputs:,}"
    title = f"Exact gradient: {args.cell.upper()}, T={args.steps:,}, {sizes}, {args.dtype}"
    draw(args.out, rows, options.between(network, args.steps, args.batch, rows), plan, title)
    print(f"Picture: {args.out}")
    return 0


def _has_more_actions(plan: Any, count: int) -> bool:
    return next(islice(plan.schedule(), count, None), None) is not None
