"""The CUDA kernels' PTX, run on the CPU: `python -m tests.cuda.ptx --help`.

The PTX is that of which the linker makes the machine code that is sent to a GPU. `translate` makes
C++ of it, with a coroutine for each thread of a GPU; `machine.cpp` runs them in random order and
checks every access; `order.h` is the memory model by which it finds races. `device` takes CuPy's
place, so that every call of the package runs in this way; `layouts` draws sweeps from a seed;
`controls` take a barrier, a fence or an acquire away, which must be found.

It needs g++ and the extra `bench`, no GPU and no driver. It cannot show the machine code itself,
the time that it takes, nor how a GPU rounds where its manual leaves that open.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[k]) for k in (1, 2)]  # mirror.py; helpers.py
