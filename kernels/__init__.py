"""Numba kernels of fastbptt: the cells' maths and, one folder a device, the sweeps over time."""
