"""bptt and evaluate: the loss of a network on a sequence, with and without the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from .. import arguments
from ..arrays import Array
from ..engine import programs
from ..engine.losses import Loss, Reduction
from ..engine.stages import Stages
from ..layers.composite import AnyLayer, State
from ..layers.network import Network
from ..memory.blocking import flush_steps
from ..memory.plan import Plan
from ..memory.policies import Memory
from . import inputs, loss_inputs, planning
from .progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class Result(Generic[AnyLayer]):
    """What `bptt` returns.

    loss : float, added in float64
    grad : the gradient of the network, a Network
    state : the final state
    grad_state : dL/d(initial state)
    grad_x : dL/dx, or None
    plan : the Plan that was carried out
    """

    loss: float
    grad: Network[AnyLayer]
    state: State
    grad_state: State
    grad_x: Array | None
    plan: Plan


def evaluate(
    network: Network,
    x: Array,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: Array | None = None,
    lengths: Array | int | None = None,
    state: State | None = None,
    reduction: Reduction = "sum",
    device: str | None = None,
) -> float:
    """Return the loss that `bptt` would return, as a float, without the gradient.

    Parameters are those of `bptt`. No state is kept over time.
    """
    own = inputs.check(inputs.network(network).layer, x, state, lengths, device)
    checked = loss_inputs.check(network, own, y, loss, weights, reduction)
    problem = own.problem
    with problem.device, problem.device.guard():
        stages = Stages(problem, own.footprint(network.readout).blocks(zero_copy=False))
        total = checked.sum(problem, stages.blocks, stages.top.workspace, multi_flush=False)
        programs.forward(stages, stages.consumer(total.add))
        stages.release()
        return total.value()


def bptt(
    network: Network[AnyLayer],
    x: Array,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: Array | None = None,
    lengths: Array | int | None = None,
    state: State | None = None,
    memory: Memory = "full",
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
) -> Result[AnyLayer]:
    """Return the loss of a network on a sequence and the gradient of it, by BPTT.

    Parameters
    ----------
    network : Network
    x : (T, B, I) array of the network's dtype, or integer tokens (T, B); B may be left out
    y : targets: (T, B, O) of the network's dtype, or for cross entropy (T, B) integer classes
    loss : "squared_error" (sum of ||o - y||^2), "cross_entropy" (softmax readout),
        "binary_cross_entropy" (sigmoid readout), or a callable `loss(h, y, start) -> (value, dh)`
        in place of the readout, called once for each position, a stretch at a time
    weights : (T,) or (T, B), scale each position's loss; positions of weight 0 are left out
    lengths : (B,) integers; sequence b counts only for t < lengths[b]
    state : the initial state, zero by default
    memory : "full", bytes such as "64MB" or an int, Full(), Checkpointed(...), Truncated(k1, k2)
    reduction : "sum", or "mean" over the positions that count
    input_grad : whether to compute dL/dx
    seed, t0 : for dropout: its seed and the time of x[0]
    device : None, "cpu", "cuda" or "cuda:1": see `forward`
    progress : True for a bar, or a callable `(done_steps, total_steps)`

    Returns
    -------
    Result with .loss .grad .state .grad_state .grad_x .plan

    Raises
    ------
    ValueError, TypeError : a wrong argument, before any work; a token or class that does not exist
    MemoryLimitError : a budget too small for any exact schedule
    """
    layer = inputs.network(network).layer
    own = inputs.check(layer, x, state, lengths, device, seed=seed, t0=t0, drops=True)
    problem = own.problem
    input_grad = arguments.flag("input_grad", input_grad)
    if input_grad and problem.shapes.tokens:
        raise ValueError("input_grad must be False when x holds tokens, which have no gradient")
    checked = loss_inputs.check(network, own, y, loss, weights, reduction)
    report, finish = reporter(progress)
    T, B, backend = own.T, own.B, problem.device
    plan, footprint, scratch = planning.choose(network, T, B, memory, backend)
    overlapping = input_grad and not plan.exact  # windows add to dL/dx through a copy
    zero_copy = problem.zero_copy and checked.zero_copy(problem) and not overlapping
    indexed = problem.shapes.tokens or checked.indexed
    blocks = footprint.blocks(scratch, zero_copy=zero_copy, indexed=indexed)
    multi_flush = plan.backward_steps > flush_steps(B)
    least = partial(planning.least_bytes, network, T, B, backend)
    with backend, backend.guard(plan.peak_bytes, least):
        stages = Stages(problem, blocks, multi_flush)
        total = checked.sum(problem, blocks, stages.top.workspace, multi_flush)
        grad_x = None
        if input_grad:
            grad_x = own.outputs.array(layer.inputs, problem.stores_outputs or not plan.exact)
        try:
            programs.gradient(stages, plan, total, grad_x, report)
        finally:
            finish()
        outputs = own.outputs
        readout = outputs.model(total.gradient())
        result = Result(
            loss=total.value(),
            grad=Network(outputs.gradient(stages.gradients()), readout),
            state=outputs.state(stages.final_states()),
            grad_state=outputs.state(stages.grad_states()),
            grad_x=None if grad_x is None else outputs.out(grad_x),
            plan=plan,
        )
        stages.release()
        return result
