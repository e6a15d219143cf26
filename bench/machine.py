"""What a result says about where it was measured."""

import os
from datetime import datetime, timezone

from fastbptt import info


def describe(threads):
    """The machine, the versions and the threads of a run, as plain data."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        **info.facts(),
        "threads": threads,
    }
