"""One step at a time: a model that goes on along a sequence that never ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..arguments import File
from ..arrays import Array, ArrayLike
from ..calls import inputs, states
from ..engine.stepping import Steps
from ..layers.composite import Layer, State, StateLike, recurrent_layers, state_of
from ..layers.model import Model, arrays_of
from ..layers.network import Network
from .models import checked, copied, first_state, refuse_gpu, structure


class Stepper:
    """A network or a layer that reads its sequence a step, or a block, at a time.

    Parameters
    ----------
    network : Network with a readout, or a recurrent layer: RNN, LSTM, GRU, a layer of a Cell, or a
        Stack of them. Its weights are copied and packed once: `update` has changes count
    B : the sequences that go on side by side; None for one without a batch axis
    state : where it begins, and where `reset` goes back to, in the form of the layer's state; by
        default the network's own, or zero

    Outputs and states have the same bits as those of `fastbptt.predict`, or of a layer
    `fastbptt.run`, on the whole sequence. Dropout is left out. `step` and short blocks keep the
    interpreter's lock, so any threads may call them; while a long `process` runs, other calls raise
    RuntimeError. It runs on the CPU.

    Raises
    ------
    ValueError, TypeError : a Bidirectional, which needs the future; arrays on a GPU; a network
        without a readout; an argument of the wrong shape, dtype or value
    """

    def __init__(
        self, network: Network | Layer, B: int | None = None, *, state: StateLike | None = None
    ) -> None:
        self._model = copied(checked(network))
        self._layer, self._readout = inputs.model(self._model)
        self._B = None if B is None else arguments.integer("B", B, 1)
        self._given = None if state is None else self._taken("state", state)
        self._use(Steps(self._layer, self._readout, self._B or 1, False))
        self._steps.set_state(self._initial())

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Run one step.

        Parameters
        ----------
        x : (B, I) array of the network's dtype, or integer tokens (B,); B is left out where the
            Stepper has none: (I,), or an integer
        out : array to write to, C-contiguous, of the shape and dtype of the result; by default a
            new one

        Returns
        -------
        (B, O) or (O,) array, the outputs of the readout, or of a layer its states (B, H) or (H,);
        `out` if that is given

        Raises
        ------
        ValueError, TypeError : an argument of the wrong shape, dtype or value; a token that does
            not exist. The state is as it was
        RuntimeError : another thread is in a long call of this Stepper
        """
        if (
            type(x) is np.ndarray
            and x.dtype == self._reads
            and x.shape == self._x_shape
            and x.flags.carray
        ):
            if out is None:
                out = np.empty(self._out_shape, self._dtype)
            else:
                self._check_out(out, self._out_shape)
            if not self._held(self._slots, x, out, 1):
                return out
        return self._step(x, out)

    def process(self, xs: ArrayLike, out: Array | None = None) -> Array:
        """Run a block of steps.

        Parameters
        ----------
        xs : (n, B, I) array of the network's dtype, or integer tokens (n, B), any n >= 0; B is left
            out where the Stepper has none. Other packages' arrays are taken as in `predict`
        out : array to write to, C-contiguous, of the shape and dtype of the result, which may be
            `xs`; by default a new one

        Returns
        -------
        (n, B, O) array, the outputs of each step, or of a layer its states (n, B, H); `out` if that
        is given

        Raises
        ------
        ValueError, TypeError : an argument of the wrong shape, dtype or value; a token that does
            not exist. The state is as it was, as it is after any exception, Ctrl-C included
        RuntimeError : another thread is in a long call of this Stepper
        """
        refuse_gpu("xs", xs)
        found = arguments.along_time("xs", xs)
        self._check_x("xs", found, 1)
        shape = len(found), *self._out_shape
        if out is None:
            out = np.empty(shape, self._dtype)
        else:
            self._check_out(out, shape)
            shared = isinstance(found, np.ndarray) and np.may_share_memory(out, found)
            if shared and out is not xs:
                raise ValueError("out must share no memory with xs, or be xs itself")
        self._run("xs", found, out)
        return out

    @property
    def state(self) -> State:
        """The state after the last step, copied, in the layer's form; it may be set."""
        values = self._steps.state()
        if self._B is None:
            values = [own[:, 0] for own in values]
        return state_of(self._layer, values)

    @state.setter
    def state(self, state: StateLike) -> None:
        self._steps.set_state(self._taken("state", state))

    def reset(self) -> None:
        """Go back to the `state` that was given, or to the network's own, or to zero.

        Raises
        ------
        RuntimeError : another thread is in a long call of this Stepper
        """
        self._steps.set_state(self._initial())

    def update(self, network: Network | Layer) -> None:
        """Go on from the state as it is with the weights that `network` has now.

        Parameters
        ----------
        network : the same network, whose arrays were changed in place, or another one with the same
            layers and sizes

        Weights are packed first, and taken over between two steps: another thread may go on
        calling `step` meanwhile.

        Raises
        ------
        ValueError, TypeError : a network of other layers, sizes or dtype; arrays on a GPU
        RuntimeError : another thread is in a long call of this Stepper
        """
        if structure(checked(network)) != structure(self._model):
            raise ValueError(
                f"network must have the sizes of the one before, {self._model!r}, not {network!r}"
            )
        model = copied(network)
        layer, readout = inputs.model(model)
        self._steps.update(layer, readout)
        self._model, self._layer, self._readout = model, layer, readout

    def save(self, path: File) -> None:
        """Write the weights and where it stands to an .npz file; `fastbptt.load` reads it.

        Parameters
        ----------
        path : a string or Path ("~" is the home directory), or an open binary file. An existing
            file is replaced only when the new one is complete

        Raises
        ------
        TypeError, ValueError : `path` is neither of these, or is not an ordinary file
        OSError : the file cannot be written
        """
        SavedStepper(*self._parts()).save(path)

    def __repr__(self) -> str:
        return f"Stepper({self._model!r}, B={self._B})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the weights and the state; the copy packs its weights anew."""
        return _made, (type(self), *self._parts())

    def _parts(self) -> tuple[Any, ...]:
        given = None if self._given is None else tuple(self._given)
        return self._model, self._B, given, tuple(map(tuple, self._steps.state()))

    # Checks.

    def _taken(self, name: str, state: StateLike) -> states.Given:
        def host(name: str, value: Any) -> Array:
            refuse_gpu(name, value)
            return arguments.array(name, value)

        batch, squeeze = self._B or 1, self._B is None
        found = states.check(name, self._layer, state, batch, squeeze, host)
        return [tuple(part.copy() for part in parts) for parts in found]

    def _check_x(self, name: str, x: Any, axes: int) -> None:
        """Check x of a step, or with one of the `axes` for time, and get ready to read it."""
        tokens = x.dtype.kind in "iu"
        if tokens and self._layer.drives:
            raise TypeError(
                f"{name} must be {self._dtype} for a layer with drives, not tokens ({x.dtype})"
            )
        row = () if self._B is None else (self._B,)
        row = row if tokens else (*row, self._layer.inputs)
        if not tokens:
            arguments.check_floats(name, x, ("n",) * axes + row, self._dtype)
        elif x.ndim != axes + len(row) or x.shape[axes:] != row:
            due = ", ".join(map(str, ("n",) * axes + row))
            raise ValueError(
                f"{name} of tokens must have shape ({due}), not {x.shape}: integers are tokens; "
                f"give features as .astype({self._dtype.name!r})"
            )
        if tokens != self._steps.tokens:
            other = Steps(self._layer, self._readout, self._B or 1, tokens)
            other.set_state(self._steps.state())
            self._use(other)

    def _check_out(self, out: Any, shape: tuple[int, ...]) -> None:
        fits = type(out) is np.ndarray and out.dtype == self._dtype and out.shape == shape
        if fits and out.flags.carray:
            return
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a NumPy array, not {arguments.describe(out)}")
        if out.dtype != self._dtype:
            raise TypeError(f"out must be {self._dtype}, not {out.dtype}")
        arguments.check_shape("out", out, shape)
        raise ValueError("out must be a plain array, C-contiguous, aligned and writable")

    # Steps.

    def _use(self, steps: Steps) -> None:
        """Have `step` find all that it needs at hand."""
        self._steps, self._slots, self._held = steps, steps.slots, steps.held
        self._dtype, self._reads = self._layer.dtype, steps.reads
        squeezed = self._B is None
        self._out_shape = steps.out_row[1:] if squeezed else steps.out_row
        self._x_shape: Any = steps.row[1:] if squeezed and not steps.tokens else steps.row
        out = np.empty(self._out_shape, self._dtype)
        x = np.empty(self._x_shape, self._reads)
        steps.prepare(x, out)
        steps.prepare(x[None], out[None])
        if steps.adds > steps.most_held or (squeezed and steps.tokens):
            self._x_shape = None  # never on the short way of `step`

    def _step(self, x: Any, out: Array | None) -> Array:
        """`step` for what is not on its short way: other arrays, errors, wide layers."""
        refuse_gpu("x", x)
        found = np.asarray(x) if isinstance(x, (int, np.integer)) else arguments.array("x", x)
        self._check_x("x", found, 0)
        if out is None:
            out = np.empty(self._out_shape, self._dtype)
        else:
            self._check_out(out, self._out_shape)
        self._run("x", found[None], out[None])
        return out

    def _run(self, name: str, x: Any, out: Array) -> None:
        def refuse(ids: Array, start: int) -> None:
            wrong = (ids < 0) | (ids >= self._layer.inputs)
            at = np.argwhere(wrong)[0].tolist()
            place = [at[0] + start, *at[1:]] if name == "xs" else at[1:]
            raise ValueError(
                f"{name} must hold classes 0..{self._layer.inputs - 1}, but "
                f"{name}{place or ''} is {ids[tuple(at)]}: integers are tokens; give features as "
                f".astype({self._dtype.name!r})"
            )

        self._steps.run(x, out, refuse)

    def _initial(self) -> list[Any]:
        """The state that `reset` goes back to, (states, B, H) for each layer."""
        if self._given is not None:
            return list(self._given)
        model = self._model
        network = model if isinstance(model, Network) else Network(model, None)
        return list(first_state(network, self._B or 1, None))


def _made(kind: type, model: Any, batch: int | None, given: Any, state: Any) -> Any:
    """A Stepper as it was when it was saved, copied or pickled."""
    made = kind(model, batch)
    made._given = None if given is None else list(given)
    made._steps.set_state(state)
    return made


@dataclass(frozen=True, eq=False, repr=False)
class SavedStepper(Model):
    """A Stepper in a file: its model, B, and for each layer the `state` given and the current one.

    States are tuples of arrays (B, H) for each recurrent layer.
    """

    model: Any
    batch: int | None
    given: Any
    state: Any

    def __post_init__(self) -> None:
        layer, _ = inputs.model(checked(self.model))
        batch = 1 if self.batch is None else arguments.integer("batch", self.batch, 1)
        for state in (self.state, *([] if self.given is None else [self.given])):
            parts = list(recurrent_layers(layer))
            if not isinstance(state, tuple) or len(state) != len(parts):
                raise ValueError(f"it must have a state for each of {len(parts)} layers")
            for own, arrays in zip(parts, state, strict=True):
                if not isinstance(arrays, tuple) or len(arrays) != own.states:
                    raise ValueError(f"a state of {own!r} must be {own.states} arrays")
                for array in arrays_of(arrays):
                    arguments.check_floats("state", array, (batch, own.hidden), layer.dtype)

    def _loaded(self) -> Stepper:
        return _made(Stepper, self.model, self.batch, self.given, self.state)
