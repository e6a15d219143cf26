"""Gradients over many processes, on one machine or more, each with sequences of its own.

They speak through MPI (mpi4py) or torch.distributed, whichever the caller has: neither is imported
here.
"""

from .gradient import bptt as bptt

__all__ = ["bptt"]
