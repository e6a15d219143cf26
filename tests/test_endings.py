"""How calls and processes end: at exit, by signals, after errors, and 10,000 times in a row."""

import os
import sys

import pytest
from checks import run_python

START = """
import atexit, gc, os, signal, sys, threading, time
import numpy as np
import fastbptt as fb
from helpers import all_results, make_problem

fb.set_num_threads(3)
p = make_problem("lstm", (200, 16, 8, 48, 2), "float32")

def answer():
    return b"".join(a.tobytes() for a in all_results(fb.bptt(p.network, p.x, p.y)))

due = answer()
"""

ENDINGS = {
    "beside a daemon thread in a call": """
begun = threading.Event()
def forever():
    while True:
        begun.set()
        answer()
threading.Thread(target=forever, daemon=True).start()
begun.wait()
time.sleep(0.05)
print("right")
""",
    "with a call in a handler at exit": """
@atexit.register
def last():
    print("right" if answer() == due else "wrong")
""",
    "with a call in a thread that goes on": """
def later():
    threading.main_thread().join()
    print("right" if answer() == due else "wrong")
threading.Thread(target=later).start()
""",
    "with a larger team in a handler at exit": """
@atexit.register
def last():
    fb.set_num_threads(6)
    print("right" if answer() == due else "wrong")
""",
    "with a cache that is collected last": """
class Last:
    def __init__(self):
        self.cache = fb.forward(p.layer, p.x)[2]
    def __del__(self, write=os.write):
        write(1, b"right")
last = Last()
""",
    "by a signal in the middle of a call": """
signal.signal(signal.SIGALRM, lambda *_: sys.exit(print("right")))
signal.setitimer(signal.ITIMER_REAL, 0.05)
while True:
    answer()
""",
    "after forks in the middle of other threads' calls": """
ended = threading.Event()
def forever():
    while not ended.is_set():
        answer()
threads = [threading.Thread(target=forever) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(5):
    time.sleep(0.02)
    pid = os.fork()
    if not pid:
        os._exit(0 if answer() == due else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
ended.set()
for thread in threads:
    thread.join()
print("right" if answer() == due else "wrong")
""",
    "after many signals, with calls in their handler": """
q, seen = make_problem("lstm", (40, 9, 4, 32, 2), "float32"), []
def handle(*_):
    fb.set_num_threads(3 + len(seen) % 2 * 2)
    seen.append(fb.bptt(q.network, q.x, q.y).loss)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.02)
while len(seen) < 20:
    assert answer() == due
signal.setitimer(signal.ITIMER_REAL, 0)
print("right" if len(set(seen)) == 1 else "wrong")
""",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_process_ends_as_it_should(how):
    if ("signal" in how or "fork" in how) and not hasattr(os, "fork"):
        pytest.skip("this system has neither forks nor alarms")
    assert run_python(START + ENDINGS[how]).split() == ["right"]


def test_a_first_call_at_the_end_of_the_interpreter_is_right():
    code = START.replace("due = answer()", "").replace("fb.set_num_threads(3)", "")
    code += """
@atexit.register
def last():
    fb.set_num_threads(1)
    alone = answer()
    fb.set_num_threads(3)
    print("right" if answer() == alone else "wrong")
"""
    assert run_python(code).split() == ["right"]


SUBINTERPRETER = """
import sys
legacy = ()
try:
    import _interpreters as interpreters
    legacy = ("legacy",)
except ImportError:
    import _xxsubinterpreters as interpreters
    legacy = () if sys.version_info < (3, 12) else None
call = '''
import warnings
warnings.simplefilter("ignore")  # NumPy's, of subinterpreters
import fastbptt as fb
fb.run(fb.RNN.init(1, 1, rng=0), [])
'''
if legacy is None:
    own = interpreters.create(isolated=False)
else:
    own = interpreters.create(*legacy)
try:
    failed = interpreters.run_string(own, call)
    print(failed.formatted if failed else "it ran")
except BaseException as error:
    print(error)
"""


def test_a_subinterpreter_is_refused_in_words():
    out = run_python(SUBINTERPRETER)
    assert "works in the main interpreter of a process only" in out


LEAKS = """
def calls():
    h, _, cache = fb.forward(q.layer, q.x)
    fb.backward(cache, q.dh)
    fb.forward(q.layer, q.x)  # a cache dropped without backward
    fb.bptt(q.network, q.x, q.y)
    fb.run(q.layer, q.x)
    fb.predict(q.network, q.x)

def used():
    gc.collect()
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
    files = len(os.listdir("/proc/self/fd"))
    return resident, files, threading.active_count(), len(gc.get_objects())

q = make_problem("lstm", (3, 2, 2, 4, 2), "float32")
for _ in range(200):
    calls()
before = used()
for _ in range(2000):
    calls()
print(*(new - old for new, old in zip(used(), before)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is in use")
def test_10000_small_calls_leak_nothing():
    resident, files, threads, objects = map(int, run_python(START + LEAKS).split())
    assert files == 0 and threads <= 0 and objects < 100
    assert resident < 4_000_000
