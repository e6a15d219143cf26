"""How much CPU time a container or a service grants its processes, on Linux."""

from functools import cache
from pathlib import Path

NONE = 1 << 30  # CPUs


@cache
def quota():
    """CPUs that the process's control groups grant it, read once; NONE without a limit."""
    return read_quota()


def read_quota(groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """The least quota of the groups that the process is in, each within the next, in whole CPUs.

    A container sees its own group as the root, or its full path without anything there.
    """
    found = [NONE]
    for folder in _folders(groups, Path(root)):
        limit = _words(folder / "cpu.max")  # version 2
        if not limit:
            limit = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0].isdecimal() and limit[1].isdecimal() and int(limit[1]):
            found.append(max(1, round(int(limit[0]) / int(limit[1]))))
    return min(found)


def _folders(groups, root):
    try:
        lines = Path(groups).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in [*lines, "0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        inner = top / path.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _words(path):
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
