"""`python -m tests.cuda.ptx`: the CUDA kernels' PTX on the CPU, or one part of that."""

import argparse
import os
import random
import sys
import time
import traceback
from pathlib import Path

from fastbptt.kernels.source import SOURCE_KEY

from . import device

MISSING = 77  # the exit status that says so
PARTS = ["controls", "tests", "sweeps"]
TESTS = ["test_gradients_cuda.py", "test_losses_cuda.py", "test_resets_cuda.py", "test_own_cuda.py"]


def main(words=None):
    """Run the checks; the exit status is 1 if one of them failed, 77 without what it needs."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.ptx", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART",
        help="sweeps drawn from a seed, tests of the package, or controls; default: all",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10.0, help="of sweeps; default: 10")
    parser.add_argument("--seed", type=int, help="default: from the kernels' sources")
    parser.add_argument("--case", help="run this sweep alone: SEED:NUMBER")
    parser.add_argument("--few", type=int, help="so many controls, drawn; default: all")
    parser.add_argument("-k", default="", help="those tests alone, as in pytest")
    args = parser.parse_args(words)
    if set(args.parts) - set(PARTS):
        parser.error(f"PART is one of {', '.join(PARTS)}")
    missing = device.missing()
    if missing is not None:
        print(missing)
        return MISSING
    os.environ["FASTBPTT_DEVICE"] = "cuda"
    device.install()
    if args.case is not None:
        seed, number = map(int, args.case.split(":"))
        return 0 if holds(seed, number) else 1
    args.seed = int(SOURCE_KEY[:6], 16) if args.seed is None else args.seed
    functions = {"controls": controls, "tests": tests, "sweeps": sweeps}
    failed = [part for part in PARTS if part in (args.parts or PARTS) and not functions[part](args)]
    said = ", ".join(f"{count} {what}" for what, count in device.launches.counts.items())
    print(f"PTX: {', '.join(failed) or 'nothing'} failed; {said}")
    return 1 if failed else 0


def sweeps(args):
    """Whether drawn sweeps are right, for some minutes."""
    end, number = time.monotonic() + 60 * args.minutes, 0
    while time.monotonic() < end:
        if not holds(args.seed, number):
            return False
        number += 1
    print(f"seed {args.seed}: {number} sweeps")
    return True


def holds(seed, number):
    """Whether a drawn sweep is right; it is shown, with how to run it again if it is not."""
    from . import layouts

    case, start = layouts.drawn(seed, number), time.monotonic()
    try:
        shapes = layouts.check(case)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED  {case}; again: python -m tests.cuda.ptx --case {seed}:{number}", flush=True)
        return False
    tiles = "; ".join(f"{shape.threads} threads, {shape.first}" for shape in shapes)
    print(f"{time.monotonic() - start:5.1f} s  {case}: {tiles}", flush=True)
    return True


def controls(args):
    """Whether everything that was taken away has been found."""
    from . import controls

    chosen = controls.all_controls()
    if args.few is not None:
        chosen = random.Random(args.seed).sample(chosen, args.few)
    missed = False
    for control in chosen:
        found = controls.run(control, control.case)
        missed |= found is None
        what = "FAILED  nothing was found" if found is None else found.splitlines()[0]
        print(f"{control}: {what}", flush=True)
    return not missed


def tests(args):
    """Whether tests of the package pass that also run on a GPU."""
    import pytest

    folder = Path(__file__).parents[1]
    files = [str(folder / name) for name in TESTS]
    return pytest.main([*files, "-q", "-x", "-p", "no:cacheprovider", "-k", args.k]) == 0


if __name__ == "__main__":
    sys.exit(main())
