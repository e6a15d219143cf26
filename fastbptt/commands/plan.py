"""`fastbptt plan`: memory against time for a network of given sizes."""

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
        "otherwise the frontier of memory against recomputation. For times in seconds, short "
        "parts are run for at most a second; otherwise nothing is run.",
    )
    steps = {"type": parser.number(int, 1), "default": 10**6, "help": "default: 1000000"}
    parser.add_argument("-T", "--steps", **steps)
    options.add_network(parser, batch=1, inputs=64, hidden=256, outputs=64)
    parser.add_argument("--memory", help='a budget such as "64MB", "full" or "auto"')
    parser.add_argument(
        "--out",
        type=options.new_file,
        metavar="PICTURE.png",
        help="draw the frontier and, with --memory, in which order the steps are run",
    )
    parser.add_argument(
        "--seconds",
        action=argparse.BooleanOptionalAction,
        help="whether to predict times on this machine; default: where a picture is drawn",
    )
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Print a plan or the frontier, and draw it if asked to."""
    import fastbptt as fb

    plan = None
    try:
        network = options.network(args, UNDRAWN)
        if args.memory is not None:
            memory = options.memory(args.memory)
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
    speeds = None
    if args.seconds or args.out is not None:
        rows = rows.checkpointed
    if args.seconds or (args.seconds is None and args.out is not None):
        speeds = _speeds(parser, args, network, rows)
        rows, plan = speeds.all(rows), plan and speeds.predicted(plan)
    print(rows if plan is None else plan)
    if args.out is None:
        return 0
    from .plan_picture import draw

    sizes = f"B={args.batch:,}, I={args.inputs:,}, H={args.hidden:,}, O={args.outputs:,}"
    title = f"Exact gradient: {args.cell.upper()}, T={args.steps:,}, {sizes}, {args.dtype}"
    between = options.between(network, args.steps, args.batch, rows)
    draw(args.out, rows, between if speeds is None else speeds.all(between), plan, title)
    print(f"Picture: {args.out}")
    return 0


def _speeds(parser: Any, args: argparse.Namespace, undrawn: Any, rows: Any) -> Any:
    """Measure the network, whose weights take memory only now."""
    import fastbptt as fb

    weights = sum(array.nbytes for array in undrawn.arrays())
    short = fb.plan(undrawn, min(args.steps, 16), args.batch).peak_bytes
    options.check_memory(parser, "short runs, for --seconds,", 2 * weights + short)
    return options.speeds(options.network(args, 0), rows)


def _has_more_actions(plan: Any, count: int) -> bool:
    return next(islice(plan.schedule(), count, None), None) is not None
