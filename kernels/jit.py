"""The one compilation policy: strict IEEE arithmetic, no interpreter lock, cached on disk.

Bits: no fast-math flag is ever set. Every fused multiply-add is written out, so a result does not
depend on how LLVM vectorises, unrolls or inlines a loop.

Cache: Numba keys its disk cache on the function's own code and file, not on what the function
calls. Every entry kernel therefore closes over `SOURCE_KEY`, which changes with any kernel source.
"""

import sys
from contextlib import contextmanager
from threading import Timer

import numba
from numba import types
from numba.extending import intrinsic

from . import SOURCE_KEY  # noqa: F401 - kernels take it from here

OPTIONS = {"nogil": True, "error_model": "numpy"}

_INNER = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
INLINED = {**_INNER, "forceinline": True}


@intrinsic
def apart(typingctx):
    """Keep the function that calls this from being inlined: compiled once, not at every call."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def inner(function):
    """Decorate a function that is only called from other kernels."""
    dispatcher = numba.njit(**_INNER)(function)
    template = dispatcher.get_call_template

    def without_literals(args, kws):
        # Numba would compile f(x, 0) and f(x, n) apart: that doubles what there is to compile.
        kws = {name: types.unliteral(kind) for name, kind in kws.items()}
        return template(tuple(types.unliteral(kind) for kind in args), kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


scalar = numba.njit(**INLINED)
"""Decorate a function of numbers: always inlined, so that the loop around it vectorises."""


_PATIENCE = 2.0  # seconds of compiling without a word
_said = []


def _say():
    if not _said:
        _said.append(True)
        text = "fastbptt: compiling its kernels, once on this machine; this takes some 10 seconds"
        print(text, file=sys.stderr, flush=True)


@contextmanager
def announced():
    """Say on stderr, once in a process, that kernels are being compiled, if it takes a while."""
    timer = Timer(_PATIENCE, _say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def entry(function):
    """Decorate a kernel that Python calls; its closure must name `SOURCE_KEY`."""
    try:
        dispatcher = numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # nowhere to write: neither beside the package nor in the home directory
        dispatcher = numba.njit(**OPTIONS)(function)
    dispatcher._compile_for_args = announced()(dispatcher._compile_for_args)
    return dispatcher
