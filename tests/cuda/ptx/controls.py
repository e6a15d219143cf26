"""What must be found: sweeps from whose PTX something that orders accesses is missing.

Each control changes one line, and passes if the emulator reports a fault or the numbers are wrong.
"""

import re
from typing import NamedTuple

from . import layouts
from .device import launches
from .emulator import Fault

# Sweeps of both products, with shuffles, whose weights lie in all three places: of a grid, the same
# with words in place of barriers, and of a block.
CASES = [
    layouts.Case(0, 0, "gru-before", "float32", 17, 3, parts, 2, "mixed", 1, "floats", words)
    for parts, words in ((2, False), (2, True), (1, False))
]
BARRIER, FENCE, RELEASE = r"^\s*bar\.sync \s*0;", r"^\s*fence\.acq_rel\.gpu;", r"\.release\b"


class Control(NamedTuple):
    """Replace match `number` of `pattern` in the PTX of the case's kernel of that name."""

    case: layouts.Case
    kernel: str  # forward or reverse
    pattern: str
    replacement: str
    number: int

    def __str__(self):
        sweep = "words" if self.case.words else "grid" if self.case.parts > 1 else "block"
        what = self.pattern.replace(r"^\s*", "").replace(r"\b", "")
        return f"{sweep} sweep, {self.kernel}, {what} number {self.number}"

    def edit(self, name, ptx):
        """The PTX with the change, if it is of that kernel."""
        if name != self.kernel:
            return ptx
        match = list(re.finditer(self.pattern, ptx, re.M))[self.number]
        return ptx[: match.start()] + self.replacement + ptx[match.end() :]


def all_controls():
    """Every barrier, fence and release of both sweeps' kernels, each by itself."""
    found = []
    for case in CASES:
        assert run(None, case) is None
        for kernel in ("forward", "reverse"):
            ptx = launches.shipped[kernel]
            for pattern, replacement in ((BARRIER, ""), (FENCE, ""), (RELEASE, ".relaxed")):
                count = len(re.findall(pattern, ptx, re.M))
                assert count or (pattern != BARRIER and (case.words or case.parts == 1))
                found += [Control(case, kernel, pattern, replacement, k) for k in range(count)]
    return found


def run(control, case):
    """Run the case with that control, or with None; returns what was found, or None."""
    launches.edit = None if control is None else control.edit
    launches.forget()
    try:
        layouts.check(case)
    except Fault as fault:
        return str(fault)
    except AssertionError as error:
        return f"wrong numbers: {error}"
    finally:
        launches.edit = None
        launches.forget()
    return None
