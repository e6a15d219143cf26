"""Fork and join inside compiled code: threads that wait in a nogil loop for pieces of a kernel.

A job is a compiled function of (data, low, high) and a range. The thread that has one claims the
team, opens the job and takes pieces of the range itself; every worker that is awake takes pieces
too, and the caller returns when none is left or under way. Nothing passes through the interpreter,
so its lock is not needed. Whoever finds the team claimed does all of it alone; a worker that the
system has put aside misses the job, and if one is put aside in the middle of a piece, the next jobs
do without. None of this shows in a result.

Mail is an int64 array: line 0 the claim and the job, line w the state of worker w. A worker says
that it is active and then looks whether the job is still open; the caller closes the job and then
looks whether a worker is active. One of the two sees the other, all accesses being sequentially
consistent, so a job's data outlives every piece of it.
"""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import SOURCE_KEY, entry, inner
from .subnormals import flush_to_zero, restore

LINE = 16  # numbers in a line: two cache lines, since processors fetch them in pairs
AWAY, WAITING = range(2)
_CLAIM, _ALONE, _SERIAL, _FUNCTION, _DATA, _TOTAL, _PIECE = range(7)  # in line 0
_JOB, _NEXT, _ACTIVE = range(7, 10)
_SPINS = 2_000  # before giving the processor away: some 20 microseconds
_YIELDS = 4_000  # before going to sleep: some milliseconds
_LATE = 3_000_000  # cycles, about a millisecond, that a worker may take longer than the caller
_PENALTY = 50  # jobs that then do without


def _address(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def _load(typingctx, array, index):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_address(context, builder, array, *args), "seq_cst", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def _store(typingctx, array, index, value):
    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        builder.store_atomic(args[2], address, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def _swap(typingctx, array, index, old, new):
    """Set the number to `new` if it is `old`; whether it was."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        pair = builder.cmpxchg(address, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), codegen


@intrinsic
def _add(typingctx, array, index, value):
    """Add to the number; returns what it was."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        return builder.atomic_rmw("add", address, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def _pause(typingctx):
    """Tell the processor that this is a spin loop."""

    def codegen(context, builder, signature, args):
        hint = _HINTS.get(platform.machine().lower())
        if hint:
            name, values = hint
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.void(), codegen


_HINTS = {
    **dict.fromkeys(("x86_64", "amd64"), ("llvm.x86.sse2.pause", [])),
    **dict.fromkeys(("aarch64", "arm64"), ("llvm.aarch64.hint", [ir.IntType(32)(1)])),
}


@intrinsic
def _cycles(typingctx):
    """The processor's cycle counter; 0 where a program may not be allowed to read it."""

    def codegen(context, builder, signature, args):
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return ir.IntType(64)(0)
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), codegen


_give_way = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


@intrinsic
def _call(typingctx, function, data, low, high):
    """Call the compiled function at that address."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word, word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(int64, int64, int64, int64), codegen


@inner
def _wait(spins):
    """One turn of waiting."""
    if spins < _SPINS:
        _pause()
    else:
        _give_way()


@inner
def _take_pieces(mail):
    """Do pieces of the open job until none is left."""
    total, piece = mail[_TOTAL], mail[_PIECE]
    while True:
        low = _add(mail, _NEXT, piece)
        if low >= total:
            return
        _call(mail[_FUNCTION], mail[_DATA], low, min(low + piece, total))


def build_serve():
    """The loop of a worker."""
    key = SOURCE_KEY

    @entry
    def serve(mail, worker):
        """Help with jobs as they come; return after some milliseconds without any."""
        key  # noqa: B018 - enters the disk cache's key
        word = flush_to_zero()
        line = worker * LINE
        _store(mail, line, WAITING)
        spins, last = 0, 0
        while spins <= _SPINS + _YIELDS:
            job = _load(mail, _JOB)
            if job != 0 and job != last:
                _add(mail, _ACTIVE, 1)
                if _load(mail, _JOB) == job:  # else the caller may already be gone
                    _take_pieces(mail)
                    last = job
                _add(mail, _ACTIVE, -1)
                spins = 0
            _wait(spins)
            spins += 1
        _store(mail, line, AWAY)
        restore(word)

    return serve


@inner
def fork(mail, parts, total, function, data):
    """Do range(total) of the job with up to `parts` threads, and return when all is done."""
    if parts <= 1 or not _swap(mail, _CLAIM, 0, 1):
        _call(function, data, 0, total)
        return
    if mail[_ALONE] > 0:
        mail[_ALONE] -= 1
        _call(function, data, 0, total)
        _store(mail, _CLAIM, 0)
        return
    mail[_FUNCTION], mail[_DATA], mail[_TOTAL] = function, data, total
    mail[_PIECE] = -(-total // parts)
    mail[_SERIAL] += 1
    _store(mail, _NEXT, 0)
    _store(mail, _JOB, mail[_SERIAL])
    started = _cycles()
    _take_pieces(mail)
    _store(mail, _JOB, 0)
    ended = _cycles()
    spins = 0
    while _load(mail, _ACTIVE) > 0:
        _wait(spins)
        spins += 1
    if _cycles() - ended > ended - started + _LATE:  # put aside in the middle of a piece
        mail[_ALONE] = _PENALTY
    _store(mail, _CLAIM, 0)


KERNELS = {}  # name -> jitted function of (*arguments, low, high)


@intrinsic(prefer_literal=True)
def _job(typingctx, name, arguments):
    """The kernel of that name with these arguments, as (function, data) for `fork`.

    `data` lies in the caller's frame, so the job must end before the caller does.
    """
    kernel = KERNELS[name.literal_value]
    argument_types = (*arguments.types, types.intp, types.intp)
    kernel.compile(argument_types)
    compiled = kernel.overloads[argument_types]

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        data = cgutils.alloca_once_value(builder, args[1])
        kind = ir.FunctionType(ir.VoidType(), [word, word, word])
        function = ir.Function(
            builder.module, kind, builder.module.get_unique_name("fastbptt.part")
        )
        function.linkage = "internal"
        function.attributes.add("noinline")  # no arithmetic may leave it: see `subnormals`
        part = ir.IRBuilder(function.append_basic_block())
        values = part.load(part.inttoptr(function.args[0], data.type))
        values = [*cgutils.unpack_tuple(part, values, len(arguments)), *function.args[1:]]
        callee = context.declare_function(builder.module, compiled.fndesc)
        context.call_conv.call_function(
            part, callee, compiled.fndesc.restype, argument_types, values
        )
        part.ret_void()
        context.add_linking_libs([compiled.library])
        pair = [builder.ptrtoint(function, word), builder.ptrtoint(data, word)]
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(types.int64, 2)(name, arguments), codegen


def kernel(name):
    """Make a function of (*arguments, low, high) callable as (mail, parts, total, *arguments)."""
    key = SOURCE_KEY

    def decorate(function):
        KERNELS[name] = inner(function)

        @entry
        def launch(mail, parts, total, *arguments):
            key  # noqa: B018 - enters the disk cache's key
            function, data = _job(name, arguments)
            word = flush_to_zero()
            fork(mail, parts, total, function, data)
            restore(word)

        return launch

    return decorate
