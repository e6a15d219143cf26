"""The one compilation policy: strict IEEE arithmetic, no interpreter lock, cached on disk.

Bits: no fast-math flag is ever set. Every fused multiply-add is written out, so a result does not
depend on how LLVM vectorises, unrolls or inlines a loop.

Cache: see `cache`. It identifies a kernel by its name, so `distinct` matters there, too.

Symbols: Numba distinguishes functions of one name by a counter of the process. Two files of the
cache that came from two processes may have different code under one symbol, and when both are
loaded one of them wins (numba/numba#10486). So every function here has a hash of its code in its
name. What our own functions read from their modules need not be in it, since `SOURCE_KEY` covers
all their sources.
"""

import sys
from contextlib import contextmanager, suppress
from threading import Timer

import numba
from numba import types
from numba.core import config
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from .cache import KernelCache
from .fingerprint import fingerprint
from .stacks import on_ample_stack

OPTIONS = {"nogil": True, "error_model": "numpy"}

_INNER = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
INLINED = {**_INNER, "forceinline": True}


def distinct(function):
    """Put the fingerprint of a function into its name."""
    if not hasattr(function, "distinct"):
        function.__qualname__ += f".{fingerprint(function)}"
        function.distinct = True
    return function


@intrinsic
def noinline(typingctx):
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
        # Numba would compile f(x, 0) and f(x, n) separately, which is twice the work.
        kws = {name: types.unliteral(kind) for name, kind in kws.items()}
        return template(tuple(types.unliteral(kind) for kind in args), kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


def scalar(function):
    """Decorate a function of numbers: always inlined, so that the loop around it vectorises."""
    return compiled(function, **INLINED)


_PATIENCE = 2.0  # seconds of compiling before a message
_said = set()


def _say(what):
    if what not in _said:
        _said.add(what)
        text = f"fastbptt: compiling {what}, once on this machine; this may take a minute"
        print(text, file=sys.stderr, flush=True)


@contextmanager
def announced(what):
    """Print to stderr, once in a process, what is being compiled, if it takes long."""
    timer = Timer(_PATIENCE, _say, [what])
    timer.daemon = True
    if _PATIENCE > 0:
        with suppress(RuntimeError):  # no thread can be started: then there is no message
            timer.start()
    else:
        _say(what)
    try:
        yield
    finally:
        timer.cancel()


def _on_disk(kernel, function, what):
    """Let a kernel use the cache on disk, and announce it where it has to be compiled."""
    kernel._cache = KernelCache(function)
    compile_now = kernel._compiler.compile

    def compile_aloud(args, return_type):
        dtype = "float32" if "float32" in str(args) else "float64"
        with announced(f"{what} for {dtype}"):
            try:
                return compile_now(args, return_type)
            except BaseException:
                kernel._cache.give_up()
                raise

    kernel._compiler.compile = compile_aloud
    return kernel


def prepare(kernel, *arguments):
    """Compile an entry kernel for arguments like these, or load it, without running it."""
    kernel._compile_for_args(*arguments)


def entry(function, what="kernels of all cells", nogil=True):
    """Decorate a kernel that Python calls; `what` says which one it is.

    What it computes must follow from its name, its closure and the kernel sources. `nogil`: whether
    it gives the interpreter's lock back while it runs.
    """
    function = distinct(function)
    dispatcher = _on_disk(compiled(function, **{**OPTIONS, "nogil": nogil}), function, what)
    dispatcher._compile_for_args = on_ample_stack(dispatcher._compile_for_args)
    return dispatcher


def callback(function, signature, what="kernels of all cells"):
    """Compile a function for that signature, to be called by its address; `what` says which."""
    function = distinct(function)
    made = CFunc(function, (signature.args, signature.return_type), {}, OPTIONS)
    _on_disk(made, function, what)
    on_ample_stack(made.compile)()
    return made
