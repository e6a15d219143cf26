"""The compiled kernels: `cells` for every device, `cpu` and `cuda`.

Axes in docstrings: T time, B sequences of the batch, I inputs, H hidden units, G gates of a cell, O
outputs. By cell: S states, R residuals, D blocks of deltas and P params, each of H numbers. A span
is the n steps of time that a call does, its first step t0 or `start`; a chunk is the part of a span
for which there is scratch. A row of a span is one (t, b), number t*B + b.

Names of arrays: x inputs, ids tokens, z pre-activations, h outputs of a layer, o outputs of the
readout, `states` s_t, `residuals` what a cell's reverse function needs besides the states, `delta`
derivatives by the pre-activations, `carry` derivatives by the states on their way back in time.
Arrays are C-contiguous. `name_start` is the flat index of an array's first number in use, and
`name_step` the numbers from one row to the next.
"""
