"""Short runs of a network, to tell how fast it is: random data, results thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ..arrays import Array, module_of
from ..backends.base import Backend
from ..engine import programs
from ..engine.losses import Loss
from ..engine.stages import Stages
from ..kernels.loss_table import LOSSES, LossName
from ..layers.network import Network
from ..memory.blocking import BlockSizes, flush_steps
from ..memory.plan import Plan
from ..memory.speeds import Sample, Speeds, measure
from . import inputs, loss_inputs

_MOST_BYTES = 1 << 26  # of the data and the cached steps of a run
_RANDOM = 4096  # random numbers that fill the data, again and again
_TEAM = 2_000_000  # multiply-adds that several threads share, however small the layer
_NUMBER = 4096  # steps of x that are made at least: longer ones are made as they are needed


def loss_of(network: Network) -> LossName | None:
    """The loss that goes with the readout; None without a readout."""
    if network.readout is None:
        return None
    fitting = (name for name in LOSSES if LOSSES[name].readout == network.readout.activation)
    return next(fitting, "squared_error")


def speeds(
    network: Network,
    plans: Sequence[Plan],
    blocks: Sequence[BlockSizes],
    device: Backend,
    tokens: bool = False,
) -> Speeds:
    """Time samples of the plans, of these block sizes each, within a second in all.

    Loading or compiling the kernels is not part of it. x is floats, or `tokens`.
    """
    runs = _Runs(network, plans[0], blocks, device, tokens)
    if runs.total and runs.batch:
        # Whatever is compiled is so after these, also what only a call of some work needs: a team.
        adds = runs.batch * sum(array.size for array in network.arrays())
        steps = max(4, _TEAM // max(1, adds))
        runs.timed(0, min(runs.total, steps), Sample(steps, 0))
        if len(plans) > 1:
            runs.timed(len(plans) - 1, 4, Sample(1, 3))
    each = max(1, plans[0].step_bytes + runs.step_bytes)
    return measure(plans, max(1, _MOST_BYTES // each), runs.timed)


class _Runs:
    """The data of runs, as long as the longest so far, and how one is timed."""

    def __init__(
        self, network: Network, full: Plan, blocks: Sequence[BlockSizes], device: Backend,
        tokens: bool,
    ):  # fmt: skip
        self.network, self.blocks, self.device, self.tokens = network, blocks, device, tokens
        self.total, self.batch = full.steps, full.batch
        self.multi_flush = full.steps > flush_steps(full.batch)
        name, readout = loss_of(network), network.readout
        self.loss: Loss = _no_loss if name is None else name
        self.classes = name is not None and LOSSES[name].classes
        self.outputs = 0 if readout is None or self.classes else readout.outputs
        self.xp = module_of(network.layer.arrays()[0])
        item = network.dtype.itemsize
        width = 0 if tokens else network.layer.inputs
        self.step_bytes = self.batch * (8 + item * (width + self.outputs))
        self.x: Any = None
        self.y: Any = None

    def _made(self, *shape: int) -> Array:
        values = np.random.default_rng(0).standard_normal(_RANDOM).astype(self.network.dtype)
        return self.xp.asarray(np.resize(values, shape))

    def _data(self, steps: int) -> tuple[Any, Any]:
        """x and y of so many steps."""
        if self.x is None or len(self.x) < steps:
            rows, layer = (
                (max(steps, _NUMBER) if steps > 64 else steps, self.batch),
                self.network.layer,
            )
            ids = self.xp.zeros(rows, np.uint8)
            self.x = ids if self.tokens else self._made(*rows, layer.inputs)
            self.y = ids if self.classes else self._made(*rows, self.outputs)
        return self.x[:steps], None if callable(self.loss) else self.y[:steps]

    def timed(self, number: int, steps: int, sample: Sample) -> tuple[float, Plan]:
        """Run so many steps with the block sizes of a plan; returns the seconds and the plan."""
        x, y = self._data(steps)
        start = perf_counter()
        plan = self._run(number, x, y, sample)
        return perf_counter() - start, plan

    def _run(self, number: int, x: Array, y: Any, sample: Sample) -> Plan:
        """What `bptt` does, for a sample."""
        network, device = self.network, self.device
        own = inputs.check(network.layer, x, device=device.name, seed=0, drops=True)
        checked = loss_inputs.check(network, own, y, self.loss, None, "sum")
        steps, given = own.T, self.blocks[number]
        blocks = given._replace(
            chunk=min(steps, given.chunk),
            indexed=min(steps, given.indexed),
            call_steps=min(steps, given.call_steps),
        )
        plan = sample.plan(own.footprint(network.readout).costs(steps, 0))
        with device, device.guard(plan.peak_bytes):
            stages = Stages(own.problem, blocks, self.multi_flush)
            total = checked.sum(own.problem, blocks, stages.top.workspace, self.multi_flush)
            programs.gradient(stages, plan, total, None, None)
            total.gradient()
            stages.gradients()
            total.value()  # on a GPU it waits for all of it
            stages.release()
        return plan


def _no_loss(h: Array, y: Any, start: int) -> tuple[float, Array]:
    return 0.0, h
