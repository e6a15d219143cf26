"""Truncated BPTT on a sequence that never ends: a ring of the last k2 steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array
from ..backends import devices
from ..engine.footprint import footprint
from ..engine.packed import Packed
from ..engine.ring import Ring
from ..layers.composite import recurrent_layers, state_of
from ..layers.network import Network
from ..memory.policies import Truncated
from .asked import Asked, Entry
from .models import first_state
from .pieces import Due, Piece
from .place import Place


class Window:
    """Truncated: every k1 steps a window goes back over at most the last k2 (a `Method`)."""

    def __init__(
        self, network: Network[Any], B: int, loss: Any, state: list[Array] | None, policy: Truncated
    ):
        self._form, self._B, self._loss = network, B, loss
        self._given, self._policy = state, policy
        self._layers = list(recurrent_layers(network.layer))
        self._device = devices.device("cpu")
        readout = network.readout
        self._size = policy.k2 + 2  # of the ring: no step that a window may need is overwritten
        self._width = network.layer.outputs if readout is None else readout.outputs
        self._dtype, self._seen = network.dtype, (network, network.arrays())
        self._asked = Asked(loss, self._time_of)
        self._place = Place()
        self._ring: Ring | None = None
        self._saved: list[Array] | None = None
        self._initial = first_state(network, B, state)
        self._gradient_of_state()

    # What a Method does.

    def push(self, network: Network[Any], piece: Piece) -> Due:
        """Run a piece of n >= 0 steps by the network as it is now."""
        before = self._place
        try:
            return self._pushed(network, piece)
        except BaseException:
            self._undo(before)
            raise
        finally:
            self._saved = None

    def finish(self, network: Network[Any]) -> Due:
        """The last window, which may be partial; it starts at 0 if all came within k2 steps."""
        before = self._place
        try:
            time, due = before.time, before.due
            if time == due:
                return Due(0.0, None, None, 0)
            place = self._with_weights(network, before)
            self._back(0 if time <= self._policy.k2 else self._first(due), due, time, place)
            loss, grad = self._take()
            self._place = place._replace(due=time, entries=())
            return Due(loss, grad, None, time - due)
        except BaseException:
            self._undo(before)
            raise

    @property
    def state(self) -> list[Array]:
        """For each recurrent layer, the state after the last step, copies."""
        if self._ring is None or not self._place.time:
            return [state.copy() for state in self._initial]
        return [state.copy() for state in self._ring.state(self._place.time)]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays that are held between pushes."""
        own = sum(packed.nbytes for _, packed in self._place.parts)
        own += sum(state.nbytes for state in self._initial) * (1 + (self._given is not None))
        return own + (0 if self._ring is None else self._ring.nbytes)

    def reset(self) -> None:
        """Go back to the state of the construction; nothing is due."""
        parts = self._place.parts[-1:]
        self._place = Place(parts=tuple((0, packed) for _, packed in parts))

    def __getstate__(self) -> dict[str, Any]:
        place, ring = self._place, self._ring
        own: dict[str, Any] = {
            "made": (self._form, self._B, self._loss, self._given, self._policy),
            "initial": self._initial,
        }
        if ring is not None:
            own["place"] = tuple(place._replace(parts=()))
            own["weights"] = [(begin, packed.own) for begin, packed in place.parts]
            own["ring"] = (ring.tokens, ring.each, ring.copies())
        return own

    def __setstate__(self, own: dict[str, Any]) -> None:
        self.__init__(*own["made"])  # type: ignore[misc]
        for state, saved in zip(self._initial, own["initial"], strict=True):
            arguments.check_floats("initial", saved, state.shape, state.dtype)
        self._initial = own["initial"]
        if "ring" not in own:
            return
        place, (tokens, each, steps) = Place(*own["place"]), own["ring"]
        late = place.time - place.due
        if len(steps[1]) != 2 * self._size or not 0 <= late < self._policy.k1 or late > place.time:
            raise ValueError("the steps of a learner must be those of its window")
        packed = [
            (begin, Packed(self._form, network.arrays(), self._device, tokens))
            for begin, network in own["weights"]
        ]
        self._place = place._replace(parts=tuple(packed))
        self._ring = self._ring_of(tokens, each)
        self._ring.put_back(steps)
        self._ring.steps.check(self._form)

    # A push.

    def _pushed(self, network: Network[Any], piece: Piece) -> Due:
        steps, ring = len(piece.x), self._ready(network, piece)
        place = self._with_weights(network, self._place)
        if place.time == 0 and steps:
            place, piece = self._begun(network, place, piece)
        needed = place.time - (0 if place.time <= self._policy.k2 else self._first(place.due))
        if needed + steps >= ring.size:
            self._saved = ring.copies()
        x, y, weights, resets, _ = piece
        if not isinstance(self._loss, str):
            if y is not None and steps:
                entry = Entry(place.time, place.time + steps, y)
                place = place._replace(entries=(*place.entries, entry))
            y = None
        elif y is None:
            weights = np.zeros((steps, self._B))
        if weights is not None and ring.each > 1 and weights.ndim == 2:
            weights = weights[..., None]
        time, due, at, counted = place.time, place.due, 0, 0
        if resets is not None:
            place = place._replace(reset=time + steps)
        out = np.empty((steps, self._B, self._width), self._dtype)
        size, k1 = ring.size, self._policy.k1
        while at < steps:
            slot, end = time % size, due + k1
            n = min(steps - at, end - time, size - slot)
            if n == steps:
                ring.steps.put(slot, n, x, y, weights, resets)
                ring.forward(time, n, resets is not None)
                ring.outputs(time, n, out)
            else:
                part = slice(at, at + n)
                own: list[Any] = [None if a is None else a[part] for a in (x, y, weights, resets)]
                ring.steps.put(slot, n, *own)
                ring.forward(time, n, resets is not None)
                ring.outputs(time, n, out[part])
            time, at = time + n, at + n
            if time == end:
                self._back(self._first(due), due, end, place)
                counted, due = counted + end - due, end
        if not counted:
            self._place = place._replace(time=time)
            return Due(0.0, None, out, 0)
        loss, grad = self._take()
        entries = tuple(entry for entry in place.entries if entry.stop > due)
        parts = self._used(place.parts, due)
        self._place = place._replace(time=time, due=due, entries=entries, parts=parts)
        return Due(loss, grad, out, counted)

    def _ready(self, network: Network[Any], piece: Piece) -> Ring:
        """The ring, made when it is first known what it is to hold."""
        ring = self._ring
        each = 1 if piece.weights is None or piece.weights.ndim == 2 else piece.weights.shape[2]
        if ring is None or (each > 1 and each != ring.each):
            tokens = piece.x.ndim == 2
            if not self._place.parts:
                packed = Packed(network, network.arrays(), self._device, tokens)
                self._place = self._place._replace(parts=((0, packed),))
            made = self._ring_of(tokens, each)
            if ring is not None:
                made.take_over(ring)
            self._ring = ring = made
        return ring

    def _ring_of(self, tokens: bool, each: int) -> Ring:
        packed, k2 = self._place.parts[-1][1], self._policy.k2
        network, B = packed.form, self._B
        own = footprint(network.layer, network.readout, k2, B, self._device, B * k2)
        ids = not isinstance(self._loss, str)
        blocks = own.blocks(zero_copy=each == 1 and not ids, indexed=True)
        loss = self._asked.checked(network)
        return Ring(
            packed, B, self._size, loss, blocks, self._device, tokens=tokens, each=each,
            replays=self._policy.weights == "replay",
        )  # fmt: skip

    def _with_weights(self, network: Network[Any], place: Place) -> Place:
        """Have today's weights be those of the steps to come."""
        if network is not self._seen[0]:
            self._seen = network, network.arrays()
        arrays, parts, time, ring = self._seen[1], place.parts, place.time, self._ring
        last = parts[-1][1]
        if last.same(arrays):
            return place
        assert ring is not None
        if self._policy.weights == "stored":
            packed = Packed(last.form, arrays, self._device, ring.tokens)
            ring.use(packed)
            if parts[-1][0] == time:  # no step was run with them
                parts = parts[:-1]
        else:
            parts, packed = (), last.later(arrays)
            if ring.sums.short and all(type(a) is np.ndarray and a.flags.carray for a in arrays):
                ring.fill(network, packed)
            else:
                packed = Packed(last.form, arrays, self._device, ring.tokens)
                ring.use(packed)
        return place._replace(parts=(*parts, (time, packed)))

    def _begun(
        self, network: Network[Any], place: Place, piece: Piece
    ) -> tuple[Place, Piece]:  # fmt: skip
        """Stand before the first step. A reset there says that the state is the network's own."""
        self._initial = first_state(network, self._B, self._given)
        begun = np.full(self._B, self._given is None)
        if piece.resets is not None and piece.resets[0].any():
            first = piece.resets[0]
            begun |= first
            anew = first_state(network, self._B, None)
            for state, fresh in zip(self._initial, anew, strict=True):
                state[:, first] = fresh[:, first]
            resets = piece.resets.copy()
            resets[0] = False
            piece = piece._replace(resets=resets)
        assert self._ring is not None
        for state, own in zip(self._ring.state(0), self._initial, strict=True):
            state[...] = own
        return place._replace(begun=begun), piece

    def _undo(self, before: Place) -> None:
        ring = self._ring
        self._gradient_of_state()
        if ring is None or not before.parts:
            self._place, self._ring = before, None
            return
        if self._saved is not None:
            ring.put_back(self._saved)
        ring.drop()
        ring.use(before.parts[-1][1])
        self._place = before

    # Windows.

    def _time_of(self, step: int) -> int:
        assert self._ring is not None
        return self._ring.time_of(step)

    def _first(self, due: int) -> int:
        """The first step of the window whose losses begin at `due`."""
        return max(0, due - (self._policy.k2 - self._policy.k1))

    def _back(self, start: int, due: int, stop: int, place: Place) -> None:
        """Go back from `stop` to `start`; the losses from `due` on count."""
        ring, weights = self._ring, self._policy.weights
        assert ring is not None
        self._asked.entries = place.entries
        parts, cuts = place.parts, place.reset > start
        today = parts[-1][1]
        again = weights == "replay" and parts[-1][0] > start
        if again:
            ring.again_from(start, stop, cuts)
        used: Any = ((0, today),)
        if weights == "stored" and len(parts) > 1:
            used = self._used(parts, start, last=start)[::-1]
        ring.back(start, due, stop, used, cuts)
        if today is not ring.packed:
            ring.use(today)
        if start == 0 and today.form.state is not None:
            assert place.begun is not None
            for total, own in zip(self._of_state, ring.carried(), strict=True):
                total += own[:, place.begun].sum(axis=1, dtype=np.float64)
        if again:
            ring.end_again()

    def _used(
        self, parts: tuple[tuple[int, Packed], ...], due: int, last: int | None = None
    ) -> tuple[tuple[int, Packed], ...]:
        """The weights that steps from `last` on were run with, or what windows will still need."""
        first = self._first(due) if last is None else last
        if due <= self._policy.k2 and last is None:
            first = 0
        later = [index for index, (begin, _) in enumerate(parts) if begin <= first]
        return parts[max(later, default=0) :]

    def _gradient_of_state(self) -> None:
        self._of_state = [np.zeros((n.states, n.hidden)) for n in self._layers]

    def _take(self) -> tuple[float, Network[Any]]:
        ring = self._ring
        assert ring is not None
        own = ring.form

        def of_state(restarts: list[Array]) -> Any:
            if own.state is None:
                return None
            found = (
                (begun + more).astype(own.dtype)
                for begun, more in zip(self._of_state, restarts, strict=True)
            )
            return state_of(own.layer, found)

        result = ring.sums.take(of_state)
        if own.state is not None:
            self._gradient_of_state()
        return result
