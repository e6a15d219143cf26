"""The loss and the gradient of a ring's windows: where they add up, and taking them."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.cpu import short
from ..kernels.cpu.bound import Bound, address_of
from ..kernels.cpu.slots import HEAD, LAYER
from ..layers.composite import rebuilt
from ..layers.network import Network
from ..memory.blocking import flush_steps
from .prepared import layer_at
from .stages import Stages


class RingSums:
    """The sums that a lane adds to as windows go back.

    total : adds up the loss; head : the readout, None without one
    long : whether a window may be so long that its sums are carried into float64 on the way
    short : whether kernels of short calls can hand the gradient over
    """

    def __init__(
        self, stages: Stages, bound: Bound, total: Any, head: Any, form: Network[Any], size: int,
        tokens: bool,
    ):  # fmt: skip
        self.stages, self.bound, self.total, self.head = stages, bound, total, head
        self.form, self.tokens, self.chain = form, tokens, stages.top
        self.flush_steps = flush_steps(self.chain.batch)
        self.long = size > self.flush_steps
        self.short = not tokens and form.state is None
        self.since, self.flushed = 0, False
        self.through_head = hasattr(total, "head")  # or the loss is a function of the states
        _, _, _, self._put_back, self._take_back, _, self._take_head = short.build_short()
        self._none = np.empty(0, form.dtype)
        self._parts = [
            (own, layer_at(n), np.array(own._order), np.array(own.cell.sums, np.int64),
             np.empty((own.states, own.batch, own.hidden), form.dtype))
            for n, own in enumerate(self.chain.recurrences)
        ]  # fmt: skip
        self._more: list[Array | float] = [0.0] * len(self._parts)
        self._point()

    def _point(self) -> None:
        """Have the lane add to arrays of zeros."""
        for row, own in zip(self.bound.layers, self.chain.recurrences, strict=True):
            tokens = self.tokens and own is self.chain.recurrences[0]
            own.input.start(tokens)
            own.recurrent.start()
            if own.sums is None:
                own.sums = np.zeros(own.blocks * own.hidden)
            own.start_restarts()
            none = self._none
            for name, array in (
                ("du_at", own.input.grad), ("dsum_at", own.sums), ("dw_at", own.recurrent.grad),
                ("du_total_at", own.input.total if self.long or tokens else none),
                ("dw_total_at", own.recurrent.total if self.long else none),
                ("restart_sums_at", none if own.restart_sums is None else own.restart_sums),
            ):  # fmt: skip
                row[getattr(LAYER, name)] = address_of(array) if array.size else 0
        if (head := self.head) is not None:
            head.start()
            for slot, array in (
                (HEAD.dv_at, head.sum.grad), (HEAD.dc_at, head.bias_total),
                (HEAD.dv_total_at, head.sum.total if self.long else self._none),
            ):  # fmt: skip
                self.bound.head[slot] = address_of(array) if array.size else 0

    def arrays(self) -> list[Array]:
        """The arrays that are added to."""
        found = []
        for own in self.chain.recurrences:
            found += [own.input.grad, own.input.total, own.recurrent.grad, own.recurrent.total]
            found += [own.sums, own.restart_sums]
        if (head := self.head) is not None:
            found += [head.sum.grad, head.sum.total, head.bias_total]
        return [array for array in found if array is not None]

    def begin(self, steps: int) -> None:
        """A window of so many steps will be added, in the dtype of the weights if few are there."""
        if self.since and self.since + steps > self.flush_steps:
            self.chain.flush()
            if self.head is not None:
                self.head.flush()
            self.since, self.flushed = 0, True
        self.since += steps
        self.flushed |= self.long

    def fold(self) -> None:
        """Take what W's gradient has of steps that read the state that resets set."""
        for index, own in enumerate(self.chain.recurrences):
            if own.restart_sums is not None:
                deltas = own.restart_sums[own.states * own.batch * own.hidden :]
                self._more[index] = self._more[index] + deltas[:, None] * own.restart[0]
                deltas[:] = 0

    def take(self, of_state: Callable[[list[Array]], Any]) -> tuple[float, Network[Any]]:
        """The loss and the gradient of all windows since the last time, which then begin anew.

        of_state : makes the gradient by the network's own state of what resets have of it, for each
            layer (states, H) in float64
        """
        self.since = 0
        if self.short and not self.flushed:
            return self._take_short()
        self.flushed = False
        self.fold()
        restarts = self.stages.restart_gradients()
        parts = self.stages.gradients()
        for index, more in enumerate(self._more):
            if isinstance(more, np.ndarray):
                parts[index].W[: len(more)] += more  # in float64, as `Recurrence` adds it
        self._more = [0.0] * len(parts)
        loss, readout = self.total.take(), self.total.gradient()
        self._point()
        return loss, Network(rebuilt(self.form.layer, iter(parts)), readout, of_state(restarts))

    def _take_short(self) -> tuple[float, Network[Any]]:
        """The same, by the kernels of short calls: nothing was carried into float64."""
        slots, dtype, parts, none = self.bound.slots, self.form.dtype, [], self._none
        for own, at, order, sums, state in self._parts:
            layer, dU, dW = own.layer, own.input.grad, own.recurrent.grad
            db, given = np.empty(layer.b.shape, dtype), layer.params
            params = none if given is None else np.empty(given.shape, dtype)
            self._take_back(slots, at, order, sums, db, params, state)
            parts.append(layer._gradient(dU, dW, db, None if given is None else params))
            own.input.grad, own.recurrent.grad = np.zeros_like(dU), np.zeros_like(dW)
            self._put_back(slots, at, own.input.grad, own.recurrent.grad)
            own.sums.fill(0)
        total, head, readout = self.total, self.head, self.form.readout
        if readout is None or not self.through_head:
            loss, readout = total.take(), total.gradient()
        else:
            dV, dc = head.sum.grad, np.empty(readout.outputs, dtype)
            loss, error = self._take_head(slots, dc)
            if hasattr(total, "ask"):
                loss = total.take()
            elif isfinite(error):
                loss += error
            total.total.fill(0)
            head.bias_total.fill(0)
            head.sum.grad = grad = np.zeros_like(dV)
            self.bound.head[HEAD.dv_at] = address_of(grad)
            readout = readout._with(V=dV, c=dc)
        layer = rebuilt(self.form.layer, iter(parts))
        return loss, self.form._with(layer=layer, readout=readout, state=None)

    def drop(self) -> None:
        """Forget the gradient of all windows, some of which may not have been ended."""
        for own in self.chain.recurrences:
            own.restart_sums = None
        self.flushed = True
        self.take(lambda restarts: None)
