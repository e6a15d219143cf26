"""Threads inside compiled code: workers that wait in a nogil loop for pieces of a job.

A job is a compiled function of (data, low, high). It does not pass through the interpreter, so its
lock is not needed, and results do not depend on which thread does what.

`fork`: the thread that has a job claims the team, opens the job and takes pieces of it itself.
Every worker that is awake takes pieces too. The caller returns when no piece is left or under way.
A caller that finds the team claimed does the whole job alone. A worker that the system has
preempted misses the job; if one is preempted in the middle of a piece, the next jobs are done
without workers.

`gang`: the workers that join within some microseconds each run the job once, as member `low` of
`high`, all at the same time, so that they can wait for each other at a `barrier`.

The mailbox is an int64 array: line 0 is the claim and the job, line w the state of worker w. A
worker first says that it is active and then checks whether the job is still open. The caller first
closes the job and then checks whether a worker is active. These accesses are sequentially
consistent, so one of the two sees the other, and a job's data outlives every piece of it.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..flat import get, put
from ..jit import entry, inner
from .addresses import pointed
from .atomics import (
    add,
    compare_exchange,
    cycles,
    exchange,
    give_way,
    load,
    load_acquire,
    pause,
    store,
    store_release,
)
from .slots import LEFT
from .subnormals import flush_to_zero, restore

LINE = 16  # numbers in a line: two cache lines, since processors fetch them in pairs
AWAY, WAITING = range(2)
_CLAIM, _ALONE, _SERIAL, _FUNCTION, _DATA, _TOTAL, _KIND = range(7)  # in line 0
_JOB, _NEXT, _ACTIVE, _THREADS, _SIZE = range(7, 12)  # _SIZE: of a gang, 0 until complete
_STEP = 12  # in line r: how many barriers the gang's member of rank r has reached
_CLOSED = 1 << 40  # a rank that no worker gets
_FORK, _GANG = range(2)  # kinds of a job
_GATHERING = 60_000  # cycles, some 20 microseconds, that a gang waits for members
_SPINS = 2_000  # before the thread yields the processor: some 20 microseconds
_YIELDS = 4_000  # before going to sleep: some milliseconds
_LATE = 3_000_000  # cycles, about a millisecond, by which a worker may be later than the caller
_PENALTY = 50  # jobs that are then done without workers


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
def wait(spins):
    """Wait for a moment, in the loop's turn number `spins`."""
    if spins < _SPINS:
        pause()
    else:
        give_way()


@inner
def _take_pieces(mailbox):
    """Do pieces of the open job until none is left."""
    function, data, total = mailbox[_FUNCTION], mailbox[_DATA], mailbox[_TOTAL]
    while True:
        piece = add(mailbox, _NEXT, 1)
        if piece >= total:
            return
        _call(function, data, piece, piece + 1)


@inner
def _join_gang(mailbox):
    """Join the open gang, if a member is missing, and run its job."""
    rank = add(mailbox, _NEXT, 1)
    if rank >= mailbox[_TOTAL]:
        return
    spins = 0
    while load_acquire(mailbox, _SIZE) == 0:
        wait(spins)
        spins += 1
    _call(mailbox[_FUNCTION], mailbox[_DATA], rank, mailbox[_SIZE])


@inner
def barrier(mailbox, rank, size, step):
    """Wait until all members of the gang have reached barrier number `step`, counted from 1."""
    store_release(mailbox, rank * LINE + _STEP, step)
    for other in range(size):
        spins = 0
        while load_acquire(mailbox, other * LINE + _STEP) < step:
            wait(spins)
            spins += 1


@inner
def join(mailbox, worker, last):
    """Take part in the open job, if not in it yet; returns (its number, whether it did).

    last : the number of the job that this worker was in
    """
    serial = load(mailbox, _JOB)
    if serial != 0 and serial != last:
        add(mailbox, _ACTIVE, 1)
        if load(mailbox, _JOB) == serial:  # else the caller may already be gone
            if worker >= mailbox[_THREADS]:
                pass
            elif mailbox[_KIND] == _GANG:
                _join_gang(mailbox)
            else:
                _take_pieces(mailbox)
            last = serial
        add(mailbox, _ACTIVE, -1)
        return last, True
    return last, False


def build_serve():
    """The loop of a worker."""

    @entry
    def serve(mailbox, worker):
        """Help with jobs; return after some milliseconds without any.

        mailbox : (lines * LINE,) int64
        worker : its number, from 1 on
        """
        word = flush_to_zero()
        line = worker * LINE
        store(mailbox, line, WAITING)
        spins, last = 0, 0
        while spins <= _SPINS + _YIELDS:
            last, joined = join(mailbox, worker, last)
            if joined:
                spins = 0
            wait(spins)
            spins += 1
        store(mailbox, line, AWAY)
        restore(word)

    return serve


@inner
def _claim(mailbox):
    """Claim the team for a job; return whether it was free."""
    if not compare_exchange(mailbox, _CLAIM, 0, 1):
        return False
    if mailbox[_ALONE] == 0:
        return True
    mailbox[_ALONE] -= 1
    store(mailbox, _CLAIM, 0)
    return False


@inner
def _open(mailbox, threads, total, kind, function, data, first):
    """Open a job whose pieces, or ranks, below `first` are the caller's."""
    mailbox[_FUNCTION], mailbox[_DATA], mailbox[_TOTAL] = function, data, total
    mailbox[_KIND], mailbox[_THREADS] = kind, threads
    mailbox[_SERIAL] += 1
    store(mailbox, _NEXT, first)
    store(mailbox, _JOB, mailbox[_SERIAL])


@inner
def _finish(mailbox, started):
    """Wait for the workers that are in the closed job, and release the team."""
    ended = cycles()
    spins = 0
    while load(mailbox, _ACTIVE) > 0:
        wait(spins)
        spins += 1
    if cycles() - ended > ended - started + _LATE:  # preempted in the middle of a piece
        mailbox[_ALONE] = _PENALTY
    store(mailbox, _CLAIM, 0)


@inner
def fork(mailbox, threads, total, function, data):
    """Do the pieces 0..total-1 of the job with up to `threads` threads; the caller does piece 0."""
    if threads <= 1 or total <= 1 or not _claim(mailbox):
        _call(function, data, 0, total)
        return
    _open(mailbox, threads, total, _FORK, function, data, 1)
    started = cycles()
    _call(function, data, 0, 1)
    _take_pieces(mailbox)
    store(mailbox, _JOB, 0)
    _finish(mailbox, started)


@inner
def leave(mailbox, left, threads, total, function):
    """Leave a job to other threads, until `finish`; meanwhile its caller does all of its own jobs.

    left : slots LEFT, the data of the job
    """
    data = pointed(left)
    if threads <= 1 or total <= 0 or not _claim(mailbox):
        _call(function, data, 0, total)
        return
    put(left, LEFT.open, 1)
    put(left, LEFT.started, cycles())
    _open(mailbox, threads, total, _FORK, function, data, 0)


@inner
def finish(mailbox, left):
    """Do what is left of a job, and wait for those who are in it."""
    if get(left, LEFT.open) == 0:
        return
    _take_pieces(mailbox)
    store(mailbox, _JOB, 0)
    _finish(mailbox, get(left, LEFT.started))
    put(left, LEFT.open, 0)


@inner
def gang(mailbox, threads, function, data):
    """Run the job at the same time on up to `threads` threads: (rank, size) for (low, high)."""
    members = min(threads, mailbox.size // LINE)
    if members <= 1 or not _claim(mailbox):
        _call(function, data, 0, 1)
        return
    for rank in range(members):
        mailbox[rank * LINE + _STEP] = 0
    mailbox[_SIZE] = 0
    _open(mailbox, members, members, _GANG, function, data, 1)
    started = cycles()
    spins = 0
    while load(mailbox, _NEXT) < members and spins < _SPINS and cycles() - started < _GATHERING:
        pause()
        spins += 1
    size = min(exchange(mailbox, _NEXT, _CLOSED), members)
    store(mailbox, _JOB, 0)
    store_release(mailbox, _SIZE, size)
    _call(function, data, 0, size)
    _finish(mailbox, started)


JOBS = {}  # name -> jitted function of (*arguments, low, high)
PROGRAMS = {}  # name -> jitted function of (*arguments)


def _outlined(function, arguments, extra):
    """The typing and the code of `job`, for a function that takes `extra` more integers."""
    argument_types = (*arguments.types, *(types.intp,) * extra)
    function.compile(argument_types)
    compiled = function.overloads[argument_types]

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        data = cgutils.alloca_once_value(builder, args[1])
        kind = ir.FunctionType(ir.VoidType(), [word, word, word])
        part = ir.Function(builder.module, kind, builder.module.get_unique_name("fastbptt.part"))
        part.linkage = "internal"
        part.attributes.add("noinline")  # no arithmetic may leave it: see `subnormals`
        inside = ir.IRBuilder(part.append_basic_block())
        values = inside.load(inside.inttoptr(part.args[0], data.type))
        values = [*cgutils.unpack_tuple(inside, values, len(arguments)), *part.args[1 : 1 + extra]]
        callee = context.declare_function(builder.module, compiled.fndesc)
        context.call_conv.call_function(
            inside, callee, compiled.fndesc.restype, argument_types, values
        )
        inside.ret_void()
        context.add_linking_libs([compiled.library])
        pair = [builder.ptrtoint(part, word), builder.ptrtoint(data, word)]
        return context.make_tuple(builder, signature.return_type, pair)

    return codegen


@intrinsic(prefer_literal=True)
def job(typingctx, name, arguments):
    """The job of that name with these arguments, as (function, data) for `fork` and `gang`.

    `data` lies in the caller's frame, so the job must end before the caller does.
    """
    codegen = _outlined(JOBS[name.literal_value], arguments, extra=2)
    return types.UniTuple(types.int64, 2)(name, arguments), codegen


@intrinsic(prefer_literal=True)
def _program(typingctx, name, arguments):
    """Like `job`, for a program: `low` and `high` are ignored."""
    codegen = _outlined(PROGRAMS[name.literal_value], arguments, extra=0)
    return types.UniTuple(types.int64, 2)(name, arguments), codegen


def named_job(name):
    """Give a function of (*arguments, low, high) the name by which `job` finds it."""

    def decorate(function):
        JOBS[name] = inner(function)
        return JOBS[name]

    return decorate


def program(name, what="kernels of all cells"):
    """Make a function of (*arguments) a kernel that Python calls; it may fork jobs.

    `what` names the kernel in messages. Subnormals are flushed to zero while it runs.
    """

    def decorate(function):
        PROGRAMS[name] = inner(function)

        def launch(*arguments):
            function, data = _program(name, arguments)
            word = flush_to_zero()
            _call(function, data, 0, 0)
            restore(word)

        return entry(launch, what)

    return decorate
