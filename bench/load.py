"""Two small layers on a quiet machine and beside two busy processes: python -m bench.load.

A pass of fastbptt is shared out among threads that wait for each other, so a thread that loses its
CPU to another process holds up the rest. Here a forward and backward pass of fastbptt and PyTorch
take turns, once on the machine as it is and once while other processes compute without end. The
benchmark starts these and ends them. All is done in several tries; a figure is the median over the
rounds of a try, in microseconds a time step.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path

from fastbptt.kernels.cpu import team

from fastbptt.commands import info, measuring
from fastbptt.commands.bench import peers

from . import stored

POINTS = (("LSTM", 1000, 1, 64, 64), ("GRU", 1000, 16, 64, 64))  # cell, T, B, I, H
DTYPE = "float32"
NAMES = ("fastbptt", "torch")
TIMED = 3  # runs in a turn; one if it takes LONG seconds or more
LONG = 1.0

# It also ends when its parent is gone, which may have been killed before it could end it.
_BUSY = """
import os, sys
print("busy", flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def busy(count):
    """Run so many processes that each keep a CPU busy; they are gone afterwards."""
    found = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", _BUSY, str(os.getpid())]
            found.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in found:
            process.stdout.readline()  # it has begun
        yield found
    finally:
        for process in found:
            process.kill()
        for process in found:
            process.wait()
            process.stdout.close()


def time_point(point, threads, processes, tries, rounds):
    """Yield the figures of a point: on the machine as it is, and beside the busy processes.

    us_per_step : {name: a figure for each try}
    ratio : time of PyTorch over that of fastbptt, for each try
    """
    cell, T, B, I, H = point
    problem = peers.problem(cell, T, B, I, H, DTYPE)
    found = {name: peers.PEERS[name](*problem, threads) for name in NAMES}
    runs = {name: peer.run for name, peer in found.items() if peer is not None}
    for run in runs.values():
        run()
    taken = {0: [], processes: []}
    for _ in range(tries):
        for count, medians in taken.items():
            with busy(count):
                medians.append(measuring.medians(runs, rounds, TIMED, LONG))
    for count, medians in taken.items():
        row = {"cell": cell, "dtype": DTYPE, "T": T, "B": B, "I": I, "H": H, "busy": count}
        row["us_per_step"] = {
            name: [seconds[name] / T * 1e6 for seconds in medians] for name in runs
        }
        if "torch" in runs:
            row["ratio"] = [seconds["torch"] / seconds["fastbptt"] for seconds in medians]
        yield row


def main():
    """Time the points and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--busy", type=int, default=2, help="processes beside it")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "load.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    rows = []
    for point in POINTS:
        for row in time_point(point, args.threads, args.busy, args.tries, args.rounds):
            rows.append(row)
            print(_line(row), flush=True)
    result = {
        "machine": machine,
        "busy": args.busy,
        "tries": args.tries,
        "rounds": args.rounds,
        "timed": TIMED,
        "points": rows,
    }
    stored.save(args.out, result)


def _line(row):
    shape = " ".join(f"{axis}{row[axis]}" for axis in "TBIH")
    times = "  ".join(
        f"{name} {' '.join(f'{value:.2f}' for value in values)}"
        for name, values in row["us_per_step"].items()
    )
    return f"{row['cell']:4} {shape}  {row['busy']} busy  {times} us a step"


if __name__ == "__main__":
    main()
