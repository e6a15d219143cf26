"""The memory of a long training step in PyTorch: python -m bench.torch_memory.

A step is the forward and the backward pass of a `fastbptt.torch.LSTM` with a budget, in a process
of its own. What it takes is by how much the process's peak grows in it, less the arrays that any
layer must make: h, and the gradients of x and of the weights. x and dh are there before.
"""

import argparse
import json
import subprocess
import sys

from fastbptt.commands import measuring

from . import stored


def peak(T=1_000_000, I=64, H=64, memory="64MB"):
    """The step in a process of its own: sizes and bytes."""
    for steps in (1, T):  # to compile takes more memory: that is another process's
        command = [sys.executable, "-m", "bench.torch_memory", *map(str, (steps, I, H, memory))]
        done = subprocess.run(
            command, cwd=stored.ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout)


def _step(T, I, H, memory):
    import torch

    import fastbptt.torch as ours

    torch.manual_seed(0)
    module = ours.LSTM(I, H, memory=memory)

    def run(steps):
        x, dh = torch.randn(steps, 1, I, requires_grad=True), torch.randn(steps, 1, H)
        before = measuring.peak_resident()
        h, _ = module(x)
        h.backward(dh)
        made = sum(a.numel() * a.element_size() for a in (h, x.grad))
        return measuring.peak_resident() - before - made

    run(20_000)  # code is compiled or loaded
    module.zero_grad()
    return {"T": T, "I": I, "H": H, "memory": memory, "bytes": run(T)}


def main():
    """Run one step and print its bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("T", nargs="?", type=int, default=1_000_000)
    parser.add_argument("I", nargs="?", type=int, default=64)
    parser.add_argument("H", nargs="?", type=int, default=64)
    parser.add_argument("memory", nargs="?", default="64MB")
    args = parser.parse_args()
    print(json.dumps(_step(args.T, args.I, args.H, args.memory)))


if __name__ == "__main__":
    main()
