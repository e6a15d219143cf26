"""What a way forward keeps for ways back that run steps again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..arrays import Array
from ..backends.base import Backend
from ..memory.plan import Plan
from .lanes import Lane


class Kept:
    """A plan, and the arena in which its schedule has begun.

    The first way back goes on from there, and so overwrites it. Any other runs the whole schedule
    again: in the same arena, or in one of its own while another way back is at work in that. So no
    way back needs more memory than the plan says, and one that is interrupted spoils nothing.

    plan : of the forward and the way back
    done : actions of the schedule that the way forward has carried out; 0 if it has kept nothing
    stored, cached : the checkpoints and the steps that they have left in the arena
    """

    def __init__(self, device: Backend, plan: Plan, done: int = 0, lane: Lane | None = None):
        self.device, self.plan, self.done = device, plan, done
        self.stored, self.cached = (0, (0, 0)) if lane is None else (lane.stored, lane.cached)
        # At most one arena, and whether it is as the way forward has left it.
        self._free: list[tuple[Array, bool]] = []
        if lane is not None and lane.arena is not None:
            self._free.append((lane.arena, True))

    @contextmanager
    def arena(self) -> Iterator[tuple[Array | None, bool]]:
        """The arena, and whether to go on in it; None while another way back is at work in it."""
        try:
            taken = [self._free.pop()]  # by one thread: a list's methods are atomic
        except IndexError:
            taken = []
        try:
            yield taken[0] if taken else (None, False)
        finally:
            for arena, _ in taken:
                self.device.home(arena[:1])  # a GPU is then done with it
                self._free.append((arena, False))
