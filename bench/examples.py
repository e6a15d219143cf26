"""Run each example at its full size and store its output: python -m bench.examples."""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time

from fastbptt.kernels.cpu import team

from fastbptt.commands import info

from . import stored

EXAMPLES = ("river", "amplifier", "live", "stream")
IN_TORCH = ("torch_audio_effect", "torch_lines", "torch_language_model")


def run(name):
    """Run one; returns its output, its seconds and the sizes in its output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=stored.ROOT,
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
    """Run, print and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    torch = importlib.util.find_spec("torch") is not None
    known = EXAMPLES + IN_TORCH * torch
    parser.add_argument("names", nargs="*", default=known, help="default: all that can be run")
    args = parser.parse_args()
    machine = info.describe(team.get_num_threads())
    path = stored.RESULTS / "examples.json"
    result = stored.load("examples") if path.exists() else {"examples": {}}
    for name in args.names:
        result["examples"][name] = run(name)
        print(result["examples"][name]["output"])
    result["machine"] = machine
    stored.save(path, result)


if __name__ == "__main__":
    main()
