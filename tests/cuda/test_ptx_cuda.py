"""The emulator of PTX finds what is wrong, and the kernels' PTX is right, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ptx import emulator
from ptx.parse import Unsupported

if emulator.COMPILER is None:
    pytest.skip("running PTX needs g++", allow_module_level=True)

HEAD = """.version 8.0
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel(.param .u64 kernel_param_0, .param .u64 kernel_param_1)
.maxntid 64, 1, 1
{
.reg .pred %p<4>;
.reg .b32 %r<9>;
.reg .f32 %f<9>;
.reg .b64 %rd<9>;
ld.param.u64 %rd1, [kernel_param_0];
ld.param.u64 %rd2, [kernel_param_1];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
"""
TAIL = "\nret;\n}\n"


def run(body, data, flags, grid=1, threads=32, seed=1):
    """Launch a kernel of two arrays, with 64 bytes of shared memory; all blocks side by side."""
    given = [np.int64(a.ctypes.data) for a in (data, flags)]
    ranges = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in (data, flags)]
    kernel = emulator.Kernel(HEAD + body + TAIL)
    return kernel.launch((grid, 1), threads, given, ranges, 64, together=True, seed=seed)


# Thread 0 of block 0 passes 7 on to thread 0 of block 1, which stores it beside the flag.
PASS = """setp.ne.u32 %p1, %r1, 0;
@%p1 bra END;
setp.eq.u32 %p2, %r2, 1;
@%p2 bra READ;
mov.u32 %r3, 7;
mov.u32 %r4, 1;
{write}
bra END;
READ:
{read}
setp.eq.u32 %p3, %r5, 0;
@%p3 bra READ;
{after}
st.global.u32 [%rd2+16], %r6;
END:"""
ADD = "red.relaxed.gpu.global.add.u32 [%rd2], %r4;"
RELEASE = "red.release.gpu.global.add.u32 [%rd2], %r4;"
STORE, STRONG_STORE = "st.global.u32 [%rd1], %r3;", "st.relaxed.gpu.global.u32 [%rd1], %r3;"
FENCE = "fence.acq_rel.gpu;"
POLL, ACQUIRE = "ld.relaxed.gpu.global.u32 %r5, [%rd2];", "ld.acquire.gpu.global.u32 %r5, [%rd2];"
LOAD, STRONG_LOAD = "ld.global.u32 %r6, [%rd1];", "ld.relaxed.gpu.global.u32 %r6, [%rd1];"
VECTOR = "ld.relaxed.gpu.global.v4.u32 {%r6, %r7, %r8, %r3}, [%rd1];"
WHOLE = ("mov.b64 %rd3, {%r3, %r4}; st.relaxed.gpu.global.b64 [%rd1], %rd3;",
         "ld.relaxed.gpu.global.b64 %rd3, [%rd1]; mov.b64 {%r6, %r5}, %rd3;", "")  # fmt: skip
TORN = ("st.relaxed.gpu.global.v2.u32 [%rd1], {%r3, %r4};",
        "ld.relaxed.gpu.global.v2.u32 {%r6, %r5}, [%rd1];", "")  # fmt: skip


def passed(way, seed):
    data, flags = np.zeros(4, np.uint32), np.zeros(8, np.uint32)
    write, read, after = way
    run(PASS.format(write=write, read=read, after=after), data, flags, grid=2, seed=seed)
    return flags[4]


@pytest.mark.parametrize(
    "way",
    [(STORE + FENCE + ADD, POLL, FENCE + LOAD), (STORE + RELEASE, ACQUIRE, LOAD),
     (STORE + RELEASE, POLL, FENCE + VECTOR), (STRONG_STORE + RELEASE, ACQUIRE, STRONG_LOAD),
     WHOLE],
    ids=["fences", "release and acquire", "release and fence", "strong", "one word"],
)  # fmt: skip
def test_what_the_memory_model_orders_is_no_race(way):
    assert {passed(way, seed) for seed in range(20)} == {7}


@pytest.mark.parametrize(
    "way",
    [(STORE + ADD, POLL, FENCE + LOAD), (STORE + RELEASE, POLL, LOAD), (STORE + ADD, ACQUIRE, LOAD),
     (STORE + FENCE + ADD, POLL, LOAD), (ADD + FENCE + STORE, ACQUIRE, LOAD)],
    ids=["no fence before", "no acquire", "no release", "no fence after", "too late"],
)  # fmt: skip
def test_what_nothing_orders_is_a_race(way):
    with pytest.raises(emulator.Fault, match="race"):
        for seed in range(20):
            passed(way, seed)


@pytest.mark.parametrize(
    "way", [(STRONG_STORE + ADD, POLL, STRONG_LOAD), TORN], ids=["relaxed", "two words"]
)
def test_strong_accesses_without_an_order_may_give_old_values(way):
    assert {passed(way, seed) for seed in range(20)} == {0, 7}


def test_a_cache_that_nothing_invalidates_must_not_read_what_is_written():
    with pytest.raises(emulator.Fault, match=r"stale.*ld\.nc"):
        passed((STORE + RELEASE, ACQUIRE, LOAD.replace("global", "global.nc")), 1)


OFFSET = """mul.wide.u32 %rd3, %r1, 4; add.s64 %rd4, %rd1, %rd3;
    mov.u32 %r4, memory; mad.lo.u32 %r4, %r1, 4, %r4;"""


@pytest.mark.parametrize(
    "body, found",
    [
        ("st.global.u32 [%rd1+128], %r1;", "outside all arrays"),
        ("ld.global.u32 %r3, [%rd1+2];", "misaligned"),
        (OFFSET + "st.shared.u32 [%r4], %r1;", "outside shared memory"),
        ("ld.shared.u32 %r3, [memory];", "shared memory without a value"),
        ("st.shared.u32 [memory], %r1;", "race.*shared memory"),
        ("setp.eq.u32 %p1, %r1, 3; @%p1 bra END; bar.sync 0; END:", "threads missing"),
        ("setp.eq.u32 %p1, %r1, 3; @%p1 bra END;"
         "shfl.sync.bfly.b32 %r3|%p2, %r1, 1, 31, -1; END:", "lanes missing"),
        ("LOOP: ld.volatile.global.u32 %r3, [%rd1+124]; setp.eq.u32 %p1, %r3, 0; @%p1 bra LOOP;",
         "deadlock"),
    ],
)  # fmt: skip
def test_a_wrong_access_is_found(body, found):
    data = np.zeros(32, np.uint32)
    with pytest.raises(emulator.Fault, match=found):
        run(body, data, data[:1])
    if "shared.u32 [%r4]" in body:
        assert run(body, data, data[:1], threads=16)["stores to shared memory"] == 16


def test_lanes_exchange_and_a_barrier_orders():
    data = np.zeros(64, np.uint32)
    body = (
        OFFSET
        + """shfl.sync.bfly.b32 %r3|%p1, %r1, 5, 31, -1;
    setp.gt.u32 %p2, %r1, 15; @%p2 bra WAIT; st.shared.u32 [%r4], %r3; WAIT: bar.sync 0;
    xor.b32 %r5, %r1, 1; shl.b32 %r5, %r5, 2; ld.shared.u32 %r6, [%r5];
    @!%p2 st.global.u32 [%rd4], %r6;"""
    )
    with pytest.raises(emulator.Fault, match="shared memory"):
        run(body, data, data[:1])
    body = body.replace("ld.shared.u32", "@!%p2 ld.shared.u32")
    run(body, data, data[:1])
    assert list(data[:16]) == [k ^ 1 ^ 5 for k in range(16)]


def test_approximations_are_as_wrong_as_the_manual_allows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(32).astype(np.float32)
    y = np.zeros(32, np.float32)
    body = (
        OFFSET
        + """add.s64 %rd5, %rd2, %rd3; ld.global.f32 %f1, [%rd4];
    div.full.f32 %f2, 0f3F800000, %f1; st.global.f32 [%rd5], %f2;"""
    )
    run(body, x, y)
    off = np.abs(y - 1 / x.astype(float)) / np.spacing(np.abs(y))
    assert 1 < off.max() <= 2.6 and np.array_equal(run(body, x, y), run(body, x, y))


def test_what_is_not_known_is_named():
    with pytest.raises(Unsupported, match=r"PTX line 16: tanh\.exact\.f32 %f1, %f2"):
        run("tanh.exact.f32 %f1, %f2;", np.zeros(1), np.zeros(1))


def python(*words):
    """The emulator's command, in a process that has no simulator."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run([sys.executable, "-m", "tests.cuda.ptx", *words], capture_output=True,
                          text=True, env=environment, cwd=Path(__file__).parents[2])  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def test_drawn_sweeps_are_the_oracles():
    assert " sweeps" in python("sweeps", "--minutes", "0.6")


def test_what_is_taken_away_is_found():
    assert "nothing failed" in python("controls", "--few", "5")


def test_cells_of_ones_own_compute_what_their_functions_say():
    assert "nothing failed" in python("tests", "-k", "traced_cell")
