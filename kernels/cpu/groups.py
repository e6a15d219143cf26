"""The control groups of the process, by which Linux limits containers and services."""

from pathlib import Path

LISTED, ROOT = "/proc/self/cgroup", "/sys/fs/cgroup"


def folders(controller, groups, root):
    """The folders of the groups that the process is in, each with those around it.

    A container sees its own group as the root, or its full path without anything there.
    controller : the one that is asked for, where it has groups of its own (version 1)
    """
    root = Path(root)
    for line in [*lines(groups), "0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        inner = top / path.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def lines(path):
    """The lines of a file, none if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def words(path):
    """The words of a file, none if it cannot be read."""
    return [word for line in lines(path) for word in line.split()]
