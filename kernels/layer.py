"""What a layer and its readout have in common on every device.

Kernels read a layer's blocks of H rows in an order of their own (`Cell.order`), and fill in blocks
of deltas in that order. Here arrays are brought into it and gradients back out of it. `xp` is the
device's module of arrays, NumPy or CuPy.

The legend of all kernels. Axes in docstrings: T time, B sequences of the batch, I inputs, H hidden
units, G gates of a cell, O outputs. By cell: S states, R residuals, D blocks of deltas and P
params, each of H numbers. A span is the n steps of time that a call does, its first step t0 or
`start`; a chunk is the part of a span for which there is scratch. A row of a span is one (t, b),
number t*B + b.

Names of arrays: x inputs, ids tokens, z pre-activations, h outputs of a layer, o outputs of the
readout, `states` s_t, `residuals` what a cell's reverse function needs besides the states, `delta`
derivatives by the pre-activations, `carry` derivatives by the states on their way back in time.
Arrays are C-contiguous. `name_start` is the flat index of an array's first number in use, and
`name_step` the numbers from one row to the next.
"""

from .cells.registry import CELLS


class WeightMatrix:
    """The shape of a weight, and the order in which it is read.

    weight : (outputs, inputs)
    front : the last `front` outputs come before the others in what kernels read
    """

    def __init__(self, weight, front):
        self.shape = self.outputs, self.inputs = weight.shape
        self.dtype, self.size, self.front = weight.dtype, weight.size, front

    def ordered(self, xp, weight):
        """Return the weight with its outputs in the order of the kernels."""
        if not self.front:
            return weight
        return xp.concatenate([weight[-self.front :], weight[: -self.front]])


class LayerWeights:
    """The weights, bias and params of a layer.

    xp : the device's module of arrays
    matrix : makes the device's WeightMatrix of (weight, front)
    vector : makes an array of one axis that kernels may read
    """

    def __init__(self, layer, xp, matrix, vector):
        self.layer, self.cell = layer, CELLS[layer.cell]
        self.hidden, self.dtype = H, dtype = layer.hidden, layer.dtype
        split = self.cell.split
        self.input = matrix(layer.U, H if split else 0)
        self.recurrent = matrix(layer.W, 0)
        bias = xp.asarray(layer.b)
        if split:  # no bias where W s stands alone
            bias = xp.concatenate([xp.roll(bias, H), xp.zeros(H, dtype)])
        params = layer.params
        params = xp.empty(0, dtype) if params is None else xp.asarray(params).reshape(-1)
        self.bias, self.params = vector(bias), vector(params)

    @property
    def first(self):
        """How many gates are in the first product, that with the state."""
        return self.cell.gates - self.cell.second


class LayerHead:
    """A readout, the loss of its outputs, and the running sums of its gradient.

    weight : the device's WeightMatrix of V
    sum : the running sum of V's gradient
    bias : c, an array that kernels may read
    bias_total : the float64 sum of c's gradient, or None before the first span
    """

    def __init__(self, readout, xp, batch, weight, sum_, bias):
        self.readout, self.xp, self.batch = readout, xp, batch
        self.weight, self.sum, self.bias = weight, sum_, bias
        self.bias_total = None

    def start(self):
        """Set the gradient to zero, if it is not there yet."""
        self.sum.start()
        if self.bias_total is None:
            self.bias_total = self.xp.zeros(self.weight.outputs)

    def gradient(self):
        """Return the gradient of the readout; the next one starts at zero."""
        self.start()
        dc, self.bias_total = self.bias_total, None
        return self.readout._with(V=self.sum.gradient(), c=dc.astype(self.bias.dtype))


class LayerRecurrence:
    """A layer's passes over time, with running gradients of their own.

    weights : the device's LayerWeights
    chunk : steps for which there is scratch
    input, recurrent : the running sums of the gradients of U and W
    """

    def __init__(self, weights, xp, batch, chunk, sum_):
        self.weights, self.xp = weights, xp
        self.layer, self.cell = weights.layer, weights.cell
        cell = self.cell
        self.hidden, self.dtype = weights.hidden, weights.dtype
        self.states, self.residuals, self.blocks = cell.states, cell.residuals, cell.delta_blocks
        self.batch, self.chunk = batch, chunk
        self.input, self.recurrent = sum_(weights.input), sum_(weights.recurrent)
        self.sums = None  # the float64 sums over time of all blocks of deltas
        self.restart = None  # (S, H), what a state is set to at a reset
        self.trains_restart = False
        self.restart_sums = None  # (S, B, H) float64, derivatives by it, and on the CPU more
        self.deltas_in_order = self.blocks == cell.gates  # each gate's block, in order of the gates

    def restarts(self, state, resets):
        """Have sequences be reset, to `state` (S, H), or to zero if it is None.

        resets : (K,) int64, the numbers t*B + b, ascending
        """
        self.trains_restart = state is not None
        zero = self.xp.zeros((self.states, self.hidden), self.dtype)
        self.restart = zero if state is None else state

    @property
    def restart_size(self):
        """How many numbers are in `restart_sums`."""
        return self.states * self.batch * self.hidden

    def start_restarts(self):
        """Set the derivatives by the state that sequences are reset to to zero."""
        if self.trains_restart:
            self.restart_sums = self.xp.zeros(self.restart_size)

    def restart_gradient(self):
        """The derivative by the state that sequences are reset to, (S, H) float64."""
        S, B, H = self.states, self.batch, self.hidden
        if self.restart_sums is None:
            return self.xp.zeros((S, H))
        return self.restart_sums[: S * B * H].reshape(S, B, H).sum(axis=1)

    def _recurrent_gradient(self):
        return self.recurrent.gradient()

    @property
    def _order(self):
        """For each gate the block of deltas that is its own."""
        return [self.cell.order.index(gate) for gate in range(self.cell.gates)]

    def gradient(self):
        """Return the gradient of the layer; the next one starts at zero."""
        sums = self.xp.zeros(self.blocks * self.hidden) if self.sums is None else self.sums
        self.sums = None
        blocks = sums.astype(self.dtype).reshape(-1, self.hidden)
        params = blocks[list(self.cell.sums)] if self.cell.sums else None
        db = blocks[self._order].reshape(-1)
        dW = self._recurrent_gradient()
        return self.layer._gradient(self.input.gradient(), dW, db, params)

    def deltas(self, blocks):
        """Return the deltas (n, B, G*H), gate by gate, from the blocks (n, B, D*H) of a span."""
        n, B = blocks.shape[:2]
        blocks = blocks.reshape(n, B, self.blocks, self.hidden)
        return blocks[:, :, self._order].reshape(n, B, self.cell.gates * self.hidden)
