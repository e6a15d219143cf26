"""Runs a kernel in Numba's simulator, on NumPy arrays, a thread of Python for each of its threads.

What kernels see as `cuda` is the simulator's. Its launcher is not used: it copies all arrays, looks
at all threads over and over to find out whether they wait, and runs one block after the other,
where the blocks of a grid sweep wait for each other.
"""

import threading

import numpy as np
from numba.cuda.simulator import kernel as numba_kernel
from numba.cuda.simulator.kernelapi import (
    Dim3,
    FakeCUDAModule,
    FakeCUDAShared,
    swapped_cuda_module,
)

_one_at_a_time = threading.Lock()  # the simulator has one kernel at a time


class _Module(FakeCUDAModule):
    """What kernels see as `cuda`: shared memory is each block's own."""

    @property
    def shared(self):
        return threading.current_thread().block.shared


class _Block:
    def __init__(self, index, threads, shared_bytes):
        self.index = Dim3(*index)
        self.barrier = threading.Barrier(threads)
        self.shared = FakeCUDAShared(shared_bytes)
        self.lanes = {}  # what threads show each other in place of a shuffle


class _Thread(threading.Thread):
    """A thread of a block, with what the simulator asks the current thread for."""

    def __init__(self, number, block, function, args, failures):
        super().__init__(daemon=True)  # a block whose partner failed waits for ever
        self.thread_id, self.threadIdx = number, Dim3(number, 0, 0)
        self.block, self.blockIdx = block, block.index
        self.function, self.args, self.failures = function, args, failures

    def run(self):
        try:
            with np.errstate(all="ignore"):  # overflow is no news on a GPU
                self.function(*self.args)
        except threading.BrokenBarrierError:  # another thread of the block failed
            pass
        except Exception as error:
            self.failures.append(error)
            self.block.barrier.abort()

    def syncthreads(self):
        self.block.barrier.wait()


def simulate(function, grid, threads, shared_bytes, args, together):
    """Run a kernel; `together`: its blocks wait for each other."""
    module = _Module((*grid, 1), (threads, 1, 1), shared_bytes)
    failures = []
    blocks = [_Block((x, y, 0), threads, shared_bytes) for x, y in np.ndindex(*grid)]
    with (
        _one_at_a_time,
        numba_kernel._push_kernel_context(module),
        swapped_cuda_module(function, module),
    ):
        for some in [blocks] if together else [[block] for block in blocks]:
            running = [
                _Thread(n, block, function, args, failures) for block in some for n in range(threads)
            ]
            for thread in running:
                thread.start()
            for thread in running:
                while thread.is_alive() and not failures:
                    thread.join(0.1)
            if failures:
                raise failures[0]
