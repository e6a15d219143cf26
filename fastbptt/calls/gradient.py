"""bptt and evaluate: the loss of a network on a sequence, with and without the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from .. import arguments
from ..arrays import Array, ArrayLike
from ..engine import programs
from ..engine.losses import Loss, Reduction
from ..engine.stages import Stages
from ..layers.composite import AnyLayer, State, StateLike
from ..layers.network import Network
from ..memory import html
from ..memory.blocking import flush_steps
from ..memory.forward_mode import policy_of
from ..memory.plan import Plan
from ..memory.policies import Memory
from . import forward_mode, inputs, loss_inputs, planning, short
from . import resets as own_resets
from .cache import described, norm
from .progress import Progress, reporter


@dataclass(frozen=True, eq=False, repr=False)
class Result(Generic[AnyLayer]):
    """What `bptt` returns. L is the loss.

    Attributes
    ----------
    loss : L, a float, summed in float64
    grad : Network of the same form as the network; grad.layer.U is dL/dU (H, I), and so on
    state : the state after the last step of each sequence, in the form of the argument `state`
    grad_state : dL/d(state before x[0]) of each sequence, in the same form, wherever that state is
        from; 0 where resets[0, b]. grad.state is dL/d(network.state): the sum over all sequences
        and pieces that begin so. With SnAp1 both are None
    grad_x : dL/dx, of the shape and dtype of x; None unless asked for by `input_grad=True`
    plan : the Plan that was carried out

    The arrays are new, of the network's dtype, and lie where x does.
    """

    loss: float
    grad: Network[AnyLayer]
    state: State
    grad_state: State
    grad_x: Array | None
    plan: Plan

    def __repr__(self) -> str:
        return f"Result(loss={self.loss:.6g}, grad={self.grad!r})"

    def _repr_html_(self) -> str:
        return html.table(
            "Result",
            [
                ("loss", f"{self.loss:.6g}"),
                ("grad", repr(self.grad)),
                ("norm of grad", f"{norm(self.grad.arrays()):.6g}"),
                ("grad_x", described(self.grad_x)),
                ("plan", repr(self.plan)),
            ],
        )


def evaluate(
    network: Network,
    x: ArrayLike,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    state: StateLike | None = None,
    reduction: Reduction = "sum",
    device: str | None = None,
) -> float:
    """Return the loss that `bptt` would return, without the gradient.

    Takes no memory that grows with T, except for a Bidirectional, whose outputs are stored. Dropout
    is left out.

    Parameters
    ----------
    network, x, y, loss, weights, lengths, resets, state, reduction, device : as in `bptt`

    Returns
    -------
    float, summed in float64

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work; for a
        token or class that does not exist, when it is read
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    layer = inputs.network(network).layer
    own = inputs.check(
        layer, x, state, lengths, device, resets=resets, own_state=network.state
    )  # fmt: skip
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
    x: ArrayLike,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    state: StateLike | None = None,
    memory: Memory = "full",
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
) -> Result[AnyLayer]:
    """Return the loss of a network on a sequence and its gradient, by BPTT (Werbos 1990).

    The gradient is exact, unless `memory` is Truncated.

    Parameters
    ----------
    network : Network
    x : (T, B, I) array of the network's dtype, or integer tokens (T, B); B may be left out. Arrays
        may be of another package, as in `forward`
    y : targets: (T, B, O) array of the network's dtype, or for cross entropy (T, B) integer classes
    loss : "squared_error" (sum of ||o - y||^2), "cross_entropy" (needs a softmax readout),
        "binary_cross_entropy" (needs a sigmoid readout), or a callable
        `loss(h, y, start) -> (value, dh)` in place of the readout. It is called for one span of
        time after another, each step once: h (n, B, H) are the states of the steps from `start`
        on, y the n entries for them, dh is dL/dh, of the shape and dtype of h. Or an OutputLoss, a
        function of the readout's outputs
    weights : (T,) or (T, B) real numbers that scale the loss of each position; positions of weight
        0 are left out, whatever y holds there. For losses that are sums over outputs also
        (T, B, O), or (T, O) where B is left out, a number for each output; a position counts if any
        of its outputs does
    lengths : (B,) integers, a list too, or one where B is left out; sequence b counts only for
        t < lengths[b]
    resets : (T, B) or (T,) booleans: where resets[t, b], sequence b begins anew before x[t], from
        the network's own state or zero, and no gradient goes back from there. At t = 0
        this is in place of `state`. Pieces between resets are sequences of their own. Past a length
        they do not matter
    state : the state before x[0], as in `forward`; by default the network's own, or zero
    memory : "full", a budget such as "64MB" or an int of bytes, Full(), Checkpointed(...) or
        Truncated(k1, k2); RTRL() or SnAp1(), which read x once and run nothing twice, on the CPU;
        or "auto": full if that takes less than half of the memory that is free
        now (of the system, the container or the GPU), else the budget of that half
    reduction : "sum", or "mean": divide by the number of positions that count
    input_grad : whether to compute dL/dx
    seed : an int for the dropout masks of a Stack; needed if it has dropout
    t0 : the time of x[0], for the dropout masks of a sequence that is given in parts
    device : None, "cpu", "cuda" or "cuda:1". None: arrays on a GPU stay there; NumPy arrays go to
        the device that the environment variable FASTBPTT_DEVICE names, else to the faster one
    progress : True for a bar, or a callable `(done_steps, total_steps)`

    Returns
    -------
    Result with .loss, .grad, .state, .grad_state, .grad_x and .plan

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work; for a
        token or class that does not exist, when it is read
    MemoryLimitError : the budget is too small for any exact schedule
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    layer, carried = inputs.network(network).layer, policy_of(memory)
    plain = weights is resets is lengths is seed is progress is None and carried is None
    if plain and type(t0) is int and t0 == 0:
        done = short.gradient(network, x, y, loss, state, memory, reduction, input_grad, device)
        if done is not None:
            return Result(**done)
    input_grad = arguments.flag("input_grad", input_grad)
    if carried is not None:
        forward_mode.check(layer, carried, input_grad, device, x)
        device = "cpu"
    own = inputs.check(
        layer, x, state, lengths, device, resets=resets, own_state=network.state, seed=seed, t0=t0,
        drops=True,
    )  # fmt: skip
    problem = own.problem
    if input_grad and problem.shapes.tokens:
        raise ValueError("input_grad must be False when x holds tokens, which have no gradient")
    checked = loss_inputs.check(network, own, y, loss, weights, reduction)
    if carried is not None:
        plan = forward_mode.plan(network, own.T, own.B, carried, own.resets)
        return Result(**forward_mode.gradient(own, checked, (carried, plan), progress))
    report, finish = reporter(progress)
    T, B, backend = own.T, own.B, problem.device
    plan, footprint, scratch = planning.choose(network, T, B, memory, backend, own.resets)
    overlapping = input_grad and not plan.exact  # windows add to dL/dx through a copy
    zero_copy = problem.zero_copy and checked.zero_copy(problem) and not overlapping
    indexed = problem.shapes.tokens or checked.indexed
    leaf = planning.leaf_ahead(plan, layer, backend)
    blocks = footprint.blocks(scratch, zero_copy=zero_copy, indexed=indexed, leaf=leaf)
    multi_flush = plan.backward_steps > flush_steps(B)
    least = partial(planning.least_bytes, network, T, B, backend, own.resets)
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
        grad_state, own_grad = own_resets.gradients(stages, outputs, own.state_given)
        result = Result(
            loss=total.value(),
            grad=Network(outputs.gradient(stages.gradients()), readout, own_grad),
            state=outputs.state(stages.final_states()),
            grad_state=grad_state,
            grad_x=None if grad_x is None else outputs.out(grad_x),
            plan=plan,
        )
        stages.release()
        return result
