"""How much CPU time a container or a service grants its processes, on Linux."""

from functools import cache

from .groups import LISTED, ROOT, folders, words

NONE = 1 << 30  # CPUs


@cache
def quota():
    """CPUs that the process's control groups grant it, read once; NONE without a limit."""
    return read_quota()


def read_quota(groups=LISTED, root=ROOT):
    """The least quota of the groups that the process is in, each within the next, in whole CPUs."""
    found = [NONE]
    for folder in folders("cpu", groups, root):
        limit = words(folder / "cpu.max")  # version 2
        if not limit:
            limit = words(folder / "cpu.cfs_quota_us") + words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0].isdecimal() and limit[1].isdecimal() and int(limit[1]):
            found.append(max(1, round(int(limit[0]) / int(limit[1]))))
    return min(found)
