"""Saving and loading by paths and open files, and what a failed save leaves behind."""

import io
import math
import os

import numpy as np
import pytest
from checks import rejected
from model_files import ARRAYS, MODELS, TANH, file_of, rnn, same, saved

import fastbptt as fb


@pytest.mark.parametrize("name", MODELS)
def test_a_file_object_takes_and_gives_a_model(name):
    file = io.BytesIO()
    MODELS[name].save(file)
    same(fb.load(file), MODELS[name])
    file.seek(0)
    same(fb.load(file), MODELS[name])


def test_files_as_they_were_always_written_load():
    same(fb.load(io.BytesIO(file_of(rnn(**TANH), ARRAYS))), fb.RNN(*ARRAYS))
    fortran = [np.asfortranarray(array) for array in ARRAYS]
    same(fb.load(io.BytesIO(file_of(rnn(**TANH), fortran))), fb.RNN(*ARRAYS))
    packed = io.BytesIO()
    with np.load(io.BytesIO(saved(MODELS["stack"]))) as members:
        np.savez_compressed(packed, **members)
    same(fb.load(packed), MODELS["stack"])


def test_what_a_path_must_be_is_said(tmp_path):
    model = MODELS["bare"]
    for function in (fb.load, model.save):
        for path in (3, None, b"model.npz", ["model.npz"], 1.5):
            rejected(lambda f=function, p=path: f(p), "path", errors=(TypeError,))
        rejected(lambda f=function: f(io.StringIO("text")), "path", "binary", errors=(TypeError,))
        rejected(lambda f=function: f("model\0.npz"), "path", errors=(ValueError,))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            function(tmp_path / "nowhere" / "model.npz")
        with pytest.raises(IsADirectoryError, match=tmp_path.name):
            function(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for function in (fb.load, MODELS["bare"].save):
        rejected(lambda f=function: f(tmp_path / "pipe"), "path", errors=(ValueError,))


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    MODELS["bare"].save("~/model.npz")
    assert (tmp_path / "model.npz").is_file()
    same(fb.load("~/model.npz"), MODELS["bare"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(error, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    MODELS["bare"].save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half of it")
        raise error

    with monkeypatch.context() as patched, pytest.raises(error):
        patched.setattr(np, "savez", fail)
        MODELS["stack"].save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    MODELS["stack"].save(path)
    same(fb.load(path), MODELS["stack"])
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_the_system_takes_can_be_saved(tmp_path):
    path = tmp_path / ("m" * 255)
    MODELS["bare"].save(path)
    same(fb.load(path), MODELS["bare"])


def test_a_model_of_more_than_a_file_can_describe_is_not_saved(tmp_path):
    layer = fb.RNN.init(1, 1, rng=0)
    stack = fb.Stack([layer] * (1 << 15))
    assert math.prod((len(stack.layers), 3)) > 1 << 16
    rejected(lambda: stack.save(tmp_path / "model.npz"), "arrays", errors=(ValueError,))
    assert not list(tmp_path.iterdir())
