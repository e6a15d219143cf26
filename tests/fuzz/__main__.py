"""`python -m tests.fuzz`: cases for some minutes, or one case again."""

import argparse
import os
import secrets
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import cases, pieces, properties


def main(words=None):
    """Run the cases; the exit status is 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long; default: 5")
    parser.add_argument("--seed", type=int, help="of the run; default: a fresh one, printed")
    parser.add_argument("--case", help="run this one alone: SEED:NUMBER, or a number with --seed")
    parser.add_argument("--most", type=int, default=5, help="stop after so many failures")
    args = parser.parse_args(words)
    if args.case is not None:
        seed, _, number = args.case.rpartition(":")
        return 0 if holds(int(seed or args.seed or 0), int(number), verbose=True) else 1
    seed = secrets.randbelow(10**6) if args.seed is None else args.seed
    print(f"fuzz: seed {seed}, {args.minutes:g} minutes", flush=True)
    end = time.monotonic() + 60 * args.minutes
    number = failed = 0
    while time.monotonic() < end and failed < args.most:
        failed += not holds(seed, number)
        number += 1
    print(f"fuzz: seed {seed}, {number} cases, {failed} failed")
    return 1 if failed else 0


def holds(seed, number, verbose=False):
    """Whether all properties hold of the case; if not, it is shown with how to run it again."""
    with tempfile.TemporaryDirectory() as folder:
        case = None
        try:
            case = cases.draw(seed, number, Path(folder))
            if verbose:
                print(case)
            properties.check(case)
            pieces.check(case)
        except Exception as error:
            wrong = case is not None and isinstance(error, AssertionError)
            if wrong and properties.is_near_a_kink(case):
                print(f"fuzz: case {seed}:{number} lies too near a kink of relu to tell")
                return True
            print(f"\nfuzz: case {seed}:{number} FAILED: {case}")
            traceback.print_exc(file=sys.stdout)
            print(f"again: make fuzz CASE={seed}:{number}", flush=True)
            return False
    return True


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    sys.exit(main())
