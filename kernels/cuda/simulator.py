"""Runs a kernel in Numba's simulator, on NumPy arrays, with a Python thread for each CUDA thread.

What kernels see as `cuda` is the simulator's. Its launcher is not used: it copies all arrays, and
runs one block after the other, whereas the blocks of a grid sweep wait for each other. Here all
threads of a launch form a ring: one at a time runs, until it has to wait.
"""

import threading

import numpy as np
from numba.cuda.simulator import kernel as numba_kernel
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule, FakeCUDAShared

_one_at_a_time = threading.Lock()  # the simulator has one kernel at a time


class RunningCUDA:
    """What kernels see as `cuda`: the module of the launch that runs."""

    def __getattr__(self, name):
        return getattr(numba_kernel._get_kernel_context(), name)


class _Module(FakeCUDAModule):
    """The module of a launch, whose shared memory is each block's own."""

    @property
    def shared(self):
        return threading.current_thread().block.shared


class _Shared(FakeCUDAShared):
    """Shared memory of a block; an alignment may be asked for, and makes no difference."""

    def array(self, shape, dtype, alignment=None):
        return super().array(shape, dtype)


class _Block:
    def __init__(self, index, threads, shared_bytes):
        self.index, self.threads = Dim3(*index), threads
        self.shared = _Shared(shared_bytes)
        self.arrived = 0  # at all syncthreads so far
        self.lanes = {}  # thread -> the values it exchanges, in place of a shuffle


class _Stopped(Exception):
    """Another thread of the launch has failed."""


class _Launch:
    """The ring of a launch's threads, and the first error of one of them."""

    def __init__(self):
        self.done = threading.Lock()
        self.done.acquire()
        self.finished = False
        self.error = None

    def fail(self, error):
        if self.error is None and not isinstance(error, _Stopped):
            self.error = error


class _Thread(threading.Thread):
    """A thread of a block, with the attributes that the simulator reads from it."""

    def __init__(self, launch, number, block, function, args):
        super().__init__(daemon=True)
        self.launch = launch
        self.thread_id, self.threadIdx = number, Dim3(number, 0, 0)
        self.block, self.blockIdx = block, block.index
        self.function, self.args = function, args
        self.turn = threading.Lock()
        self.turn.acquire()
        self.synced = 0
        self.before = self.after = self

    def run(self):
        self.turn.acquire()
        try:
            if self.launch.error is None:
                with np.errstate(all="ignore"):  # a GPU does not warn of overflow
                    self.function(*self.args)
        except BaseException as error:
            self.launch.fail(error)
        self.before.after, self.after.before = self.after, self.before
        if self.after is not self:
            self.after.turn.release()
        else:
            self.launch.finished = True
            self.launch.done.release()

    def rest(self):
        """Let each other thread run until it waits."""
        if self.after is not self:
            self.after.turn.release()
            self.turn.acquire()
        if self.launch.error is not None:
            raise _Stopped

    def syncthreads(self):
        self.synced += 1
        self.block.arrived += 1
        while self.block.arrived < self.synced * self.block.threads:
            self.rest()


def simulate(function, grid, threads, shared_bytes, args, together):
    """Run a kernel.

    function : the kernel, plain Python
    grid : (blocks along x, along y)
    threads : of a block
    shared_bytes : of a block's dynamic shared memory
    args : flat NumPy arrays and numbers
    together : whether its blocks wait for each other, so that they must run side by side
    """
    module = _Module((*grid, 1), (threads, 1, 1), shared_bytes)
    blocks = [_Block((x, y, 0), threads, shared_bytes) for x, y in np.ndindex(*grid)]
    with _one_at_a_time, numba_kernel._push_kernel_context(module):
        for some in [blocks] if together else [[block] for block in blocks]:
            _run(some, threads, function, args)


def _run(blocks, threads, function, args):
    launch = _Launch()
    ring = [
        _Thread(launch, number, block, function, args)
        for block in blocks
        for number in range(threads)
    ]
    try:
        for thread in ring:
            thread.start()
    except BaseException as error:  # too many threads, or Ctrl-C: stop those that have started
        launch.fail(error)
        ring = [thread for thread in ring if thread.is_alive()]
    for thread, after in zip(ring, ring[1:] + ring[:1], strict=True):
        thread.after, after.before = after, thread
    if ring:
        ring[0].turn.release()
    while ring and not launch.finished:
        try:
            launch.done.acquire()
        except BaseException as error:  # Ctrl-C: the others stop when they next wait
            launch.fail(error)
    if launch.error is not None:
        raise launch.error
