"""The one compilation policy: strict IEEE arithmetic, no interpreter lock, cached on disk.

Bits: no fast-math flag is ever set. Every fused multiply-add is written out, so a result does not
depend on how LLVM vectorises, unrolls or inlines a loop.

Cache: Numba keys its disk cache on the function's own code and file, not on what the function
calls. Every entry kernel therefore closes over `SOURCE_KEY`, which changes with any kernel source.

Symbols: Numba tells functions of one name apart by a number that it counts up in a process. Two
files of the cache that came from two processes may hold different code under one symbol, and when
both are loaded one of them wins (numba/numba#10486). So every function here bears a hash of its
code in its name.
"""

import hashlib
import sys
from contextlib import contextmanager, suppress
from threading import Timer
from types import CodeType, FunctionType

import numba
from numba import types
from numba.core import config
from numba.extending import intrinsic

from . import SOURCE_KEY  # noqa: F401 - kernels take it from here
from .stacks import on_ample_stack

OPTIONS = {"nogil": True, "error_model": "numpy"}

_INNER = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
INLINED = {**_INNER, "forceinline": True}


def fingerprint(*values, names=False):
    """A text that differs where functions would compute something else; so do other values.

    With `names` the globals that a function names count, too.
    """
    digest = hashlib.sha256()
    seen = set()

    def add(value):
        if hasattr(value, "py_func"):  # compiled: its name is distinct already
            digest.update(value.py_func.__qualname__.encode())
        elif isinstance(value, FunctionType):
            if value in seen:
                return
            seen.add(value)
            add(value.__code__)
            for part in (*(cell.cell_contents for cell in value.__closure__ or ()),
                         *(value.__defaults__ or ())):  # fmt: skip
                add(part)
            if names:
                for name in value.__code__.co_names:
                    add(value.__globals__.get(name))
        elif isinstance(value, CodeType):
            digest.update(value.co_code + repr(value.co_names).encode())
            for constant in value.co_consts:
                add(constant)
        else:
            text = repr(value)
            digest.update((type(value).__name__ if " at 0x" in text else text).encode())

    for value in values:
        add(value)
    return digest.hexdigest()[:16]


def distinct(function):
    """Put the fingerprint of a function into its name."""
    if not hasattr(function, "distinct"):
        function.__qualname__ += f".{fingerprint(function)}"
        function.distinct = True
    return function


@intrinsic
def apart(typingctx):
    """Keep the function that calls this from being inlined: compiled once, not at every call."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def compiled(function, **options):
    """Numba's njit, which compiles nothing where NUMBA_DISABLE_JIT is set."""
    if config.DISABLE_JIT:
        raise RuntimeError(
            "fastbptt's kernels work only when they are compiled, but NUMBA_DISABLE_JIT is set, "
            "which turns Numba's compiler off: unset it"
        )
    return numba.njit(**options)(distinct(function))


def inner(function):
    """Decorate a function that is only called from other kernels."""
    dispatcher = compiled(function, **_INNER)
    template = dispatcher.get_call_template

    def without_literals(args, kws):
        # Numba would compile f(x, 0) and f(x, n) apart: that doubles what there is to compile.
        kws = {name: types.unliteral(kind) for name, kind in kws.items()}
        return template(tuple(types.unliteral(kind) for kind in args), kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


def scalar(function):
    """Decorate a function of numbers: always inlined, so that the loop around it vectorises."""
    return compiled(function, **INLINED)


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
    with suppress(RuntimeError):  # no thread can be started: then it is not said
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def prepare(kernel, *arguments):
    """Compile an entry kernel for arguments like these, or load it, without running it."""
    kernel._compile_for_args(*arguments)


def entry(function):
    """Decorate a kernel that Python calls; its closure must name `SOURCE_KEY`."""
    try:
        dispatcher = compiled(function, **OPTIONS, cache=True)
    except RuntimeError:  # nowhere to write: neither beside the package nor in the home directory
        dispatcher = compiled(function, **OPTIONS)
    dispatcher._compile_for_args = announced()(on_ample_stack(dispatcher._compile_for_args))
    return dispatcher
