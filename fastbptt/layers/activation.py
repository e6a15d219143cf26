"""Activations of the caller's own: Python functions of one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .definitions import Traced, check_function, check_name, compare, number

_STEP = 1e-6  # of the central differences


@dataclass(frozen=True, eq=False)
class Activation(Traced):
    """An activation g of your own for `fastbptt.RNN`: s = g(U x + W s' + b).

    Parameters
    ----------
    name : its name in files and messages, a Python identifier
    function : g(a), plain Python on numbers, traced like the function of `fastbptt.Cell`
    slope : g'(a) as a function of s = g(a), if it is one; or None: it is derived from `function`,
        and a is kept for it where g(a) does not do

    Raises
    ------
    ValueError : a given slope is not the derivative of the function (both are compared with central
        differences at once), or the name is no identifier
    TypeError : one of them is no function, or cannot be traced
    """

    name: str
    function: Callable[[float], float]
    slope: Callable[[float], float] | None = None
    cell: str = field(init=False, repr=False)
    traces: tuple[Any, ...] = field(init=False, repr=False)

    activates = True

    def __post_init__(self) -> None:
        from ..kernels.cells import custom

        check_name("Activation", self.name)
        check_function("Activation.function", self.function)
        graph, value = custom.trace("Activation.function", self.function, single=True, a=1)
        node = number("Activation.function", graph, value)
        traces: tuple[Any, ...] = (custom.Trace.of(((node,),)),)
        if self.slope is not None:
            check_function("Activation.slope", self.slope)
            graph, value = custom.trace("Activation.slope", self.slope, single=True, s=1)
            node = number("Activation.slope", graph, value)
            traces += (custom.Trace.of(((node,),)),)
            self._try(*(trace.function((name,)) for trace, name in zip(traces, "as", strict=True)))
        self._set(traces=traces)
        self._define()
        self.enter()

    def _define(self) -> None:
        from ..kernels.cells import custom

        graph, (states,) = self.traces[0].nodes()
        if len(self.traces) == 1:
            texts, residuals = custom.derived(graph, states, 1, 0)
        else:
            graph, ((slope,),) = self.traces[1].nodes()
            (ds,) = graph.inputs("ds", 1)
            delta = graph.number(ds * graph.symbol(slope))
            texts, residuals = custom.texts((states, ()), ((delta,), (graph.number(0),))), 0
        self._set(cell=custom.define("rnn-own", self.name, texts, 1, 1, residuals, 0))

    def _try(self, function: Callable[..., Any], slope: Callable[..., Any]) -> None:
        """Compare `slope` with central differences of `function`."""
        for a in np.random.default_rng(0).uniform(-2, 2, 20).tolist():
            low, g, high = (function((x,))[0][0] for x in (a - _STEP, a, a + _STEP))
            due = (high - low) / (2 * _STEP)
            compare(f"Activation.slope at g({a:.3g})", slope((g,))[0][0], due)

    def _settings(self) -> dict[str, Any]:
        return {"name": self.name}

    def _functions(self) -> dict[str, Callable[..., Any] | None]:
        function, *slopes = (
            partial(_at, trace.function((x,))) for trace, x in zip(self.traces, "as", strict=False)
        )
        return {"function": function, "slope": slopes[0] if slopes else None}


def _at(call: Callable[..., Any], x: float) -> float:
    value: float = call((x,))[0][0]
    return value
