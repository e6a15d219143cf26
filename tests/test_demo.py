"""The demo: its text, its baseline models, its exact gradient, and a small run of the command."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import run_command

from fastbptt.commands.demo import exact as demo_exact
from fastbptt.commands.demo import text as demo_text
from fastbptt.commands.demo import training as demo_training


def test_every_printable_character_and_newline_survives_encoding():
    written = "".join(map(chr, range(32, 127))) + "\n"
    ids = demo_text.encode(written.encode())
    assert len(set(ids.tolist())) == demo_text.CLASSES - 1
    assert demo_text.decode(ids) == written


def test_any_other_byte_is_one_class_and_a_windows_line_end_is_a_newline():
    assert demo_text.encode(b"\t\x00\xff\r").tolist() == [demo_text.OTHER] * 4
    assert demo_text.decode(demo_text.encode(b"a\r\nb\t")) == "a\nb?"


def test_the_text_is_the_standard_librarys_own_without_tests_and_site_packages():
    files = demo_text.stdlib_files()
    assert Path(os.__file__) in files
    assert files == demo_text.stdlib_files()
    inside = [path.relative_to(Path(os.__file__).parent).parts for path in files]
    assert not {"test", "tests", "site-packages"} & {part for parts in inside for part in parts}


def test_held_out_files_are_never_trained_on():
    train, held_out = demo_text.split(list(range(100)), every=20)
    assert held_out == [19, 39, 59, 79, 99]
    assert sorted(train + held_out) == list(range(100))


def test_streams_are_consecutive_text_and_targets_the_next_character():
    ids = np.arange(23, dtype=np.uint8)
    x, y = demo_text.streams(ids, 3)
    assert x.shape == y.shape == (7, 3)
    assert x.T.ravel().tolist() == list(range(21))
    assert np.array_equal(y, x + 1)


def test_order0_and_order1_bits_match_counting_by_hand():
    rng = np.random.default_rng(3)
    train, held_out = (rng.integers(0, 4, n).astype(np.uint8) for n in (300, 50))
    total, V = 0.0, demo_text.CLASSES
    for c in held_out.tolist():
        total -= np.log2((train.tolist().count(c) + 1) / (len(train) + V))
    assert demo_text.order0_bits(train, held_out) == pytest.approx(total / 50, rel=1e-12)

    pairs = list(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
    total = 0.0
    for a, b in zip(held_out[:-1].tolist(), held_out[1:].tolist(), strict=True):
        count = pairs.count((a, b)) + 1
        total -= np.log2(count / (sum(pair[0] == a for pair in pairs) + V))
    assert demo_text.order1_bits(train, held_out) == pytest.approx(total / 49, rel=1e-12)


def test_gzip_bits_are_small_for_repetition_and_large_for_noise():
    rng = np.random.default_rng(0)
    assert demo_text.gzip_bits(np.zeros(10_000, np.uint8)) < 0.1
    assert demo_text.gzip_bits(rng.integers(0, 97, 10_000).astype(np.uint8)) > 6


def test_400_updates_on_a_repeated_phrase_beat_order_1():
    ids = demo_text.encode(b"abcabdabe " * 3000)
    network = demo_training.new_network(32, seed=0)
    clock = itertools.count().__next__  # a second an update
    learning = demo_training.train(network, ids, ids[:2000], 400, B=8, rate=0.02, clock=clock)
    assert 380 < learning.updates <= 400
    assert learning.held_out[-1][1] < 0.5 * demo_text.order1_bits(ids, ids[:2000])
    assert demo_training.sample(network, "abc", 20, temperature=0.5).startswith("abc")


def test_a_tiny_demo_runs_through_and_leaves_a_picture(tmp_path):
    picture = tmp_path / "picture.png"
    options = ["--seconds", "1", "--hidden", "16", "--streams", "8", "--steps", "20000"]
    options += ["--budget", "2MB", "--out", str(picture)]
    done = run_command("demo", *options)
    assert done.returncode == 0, done.stderr
    assert "peak measured" in done.stdout
    assert "order-1 model" in done.stdout
    assert "100%" in done.stderr  # the progress bars came to their end
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_exact_gradient_keeps_to_its_budgets_and_is_the_same_to_the_bit():
    ids = np.random.default_rng(0).integers(0, demo_text.CLASSES, 20_001).astype(np.uint8)
    exact = demo_exact.exact_gradient(ids, "3MB", hidden=32)
    assert exact.same
    assert exact.runs[0].plan.peak_bytes <= 3_000_000 < exact.frontier[0].peak_bytes
    assert [run.plan.recomputes for run in exact.runs] == [1, 1, 2]
    for run in exact.runs:
        assert run.measured_bytes <= run.plan.peak_bytes + 100_000  # the bar's objects
    sizes = [run.plan.peak_bytes for run in exact.runs]
    assert sizes == sorted(sizes, reverse=True)
    assert exact.bits == pytest.approx(np.log2(demo_text.CLASSES), abs=0.2)


def test_without_matplotlib_the_demo_names_the_extra_that_brings_it():
    code = "import sys; sys.modules['matplotlib'] = None\n"
    code += "from fastbptt.commands.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "fastbptt[cli]" in done.stderr and done.stderr.count("\n") == 1
