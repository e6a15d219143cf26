"""`fastbptt plan`: what memory costs in time, for given sizes."""

CELLS = {"rnn": "RNN", "lstm": "LSTM"}


def add_command(commands):
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
