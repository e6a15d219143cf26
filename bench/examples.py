"""Run each example at its full size and keep what it prints: python -m bench.examples."""

import argparse
import json
import os
import re
import subprocess
import sys
import time

from fastbptt.kernels.cpu import team

from fastbptt.commands import info

from .figures import RESULTS, ROOT

EXAMPLES = ("river", "amplifier", "stream")


def run(name):
    """Run one; returns what it printed, how long it took and the sizes it names."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = {
        "command": f"python examples/{name}.py",
        "seconds": time.perf_counter() - start,
        "output": done.stdout,
    }
    sizes = {
        "steps": r"steps, sequences    ([\d,]+)",
        "budget": r"checkpointed, budget (.+)",
        "updates": r"after (\d+) exact gradients",
    }
    for key, pattern in sizes.items():
        match = re.search(pattern, done.stdout)
        if match:
            text = match[1].replace(",", "")
            found[key] = int(text) if text.isdecimal() else text
    return found


def main():
    """Run, print and write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=EXAMPLES, help="default: all")
    args = parser.parse_args()
    path = RESULTS / "examples.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"examples": {}}
    for name in args.names:
        kept["examples"][name] = run(name)
        print(kept["examples"][name]["output"])
    kept["machine"] = info.describe(team.get_num_threads())
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
