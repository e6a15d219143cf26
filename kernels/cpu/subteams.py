"""Threads of a job that are the team of another thread of it.

The team of the process has one job at a time. Where that job is two lanes beside each other, each
is carried out by a thread that has jobs of its own, and the other threads help one of the two. A
subteam has a mailbox of its own, an int64 array like the team's, which only lasts as long as the
job.
"""

from ..jit import inner
from .atomics import load, store
from .workers import join, wait

_ENDED = 13  # in line 0: whether helpers are to return


@inner
def begin(mailbox):
    """Let a mailbox be one that nobody has used."""
    mailbox[:] = 0


@inner
def help_until_ended(mailbox, worker):
    """Be the worker of that number, from 1 on, until the thread that has the mailbox is done."""
    spins, last = 0, 0
    while load(mailbox, _ENDED) == 0:
        last, joined = join(mailbox, worker, last)
        if joined:
            spins = 0
        wait(spins)
        spins += 1


@inner
def end(mailbox):
    """Let helpers return, also those who come late."""
    store(mailbox, _ENDED, 1)
