"""Models of all kinds, and their files: saved ones, and ones made by hand."""

import io
import json
import struct
import zipfile

import numpy as np

import fastbptt as fb

TIMED = fb.Activation("timed_files", lambda a: 0.5 * a, lambda s: 0.5)


def models():
    rng = np.random.default_rng(0)
    lstm = fb.LSTM.init(3, 4, rng=rng, peepholes=True)
    gru = fb.GRU.init(4, 5, rng=rng, reset="before")
    both = fb.Bidirectional(fb.RNN.init(5, 2, rng=rng), fb.GRU.init(5, 3, rng=rng))
    stack = fb.Stack([lstm, gru, both], dropout=0.25)
    return {
        "rnn": fb.RNN.init(2, 3, rng=rng, dtype="float64", activation=TIMED),
        "readout": fb.Readout.init(2, 3, rng=rng, activation="softmax"),
        "bare": fb.Network(lstm, None),
        "stack": fb.Network(stack, fb.Readout.init(5, 2, rng=rng)),
    }


MODELS = models()


def saved(model):
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def same(one, other):
    assert type(one) is type(other) and repr(one) == repr(other)
    for a, b in zip(one.arrays(), other.arrays(), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def archive(entries, method=zipfile.ZIP_STORED):
    """A zip of (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as members:
        for name, content in entries:
            members.writestr(name, content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(descr, shape, fortran=False):
    """The .npy header of an array, without the array."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape})
    text = text.replace("}", ", }").encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def file_of(model, arrays=(), version=1):
    """A file whose structure says `model`, with those arrays."""
    structure = npy(np.array(json.dumps({"format": version, "model": model})))
    named = [(f"array{n}.npy", npy(array)) for n, array in enumerate(arrays)]
    return archive([("structure.npy", structure), *named])


def rnn(U="array0", W="array1", b="array2", **others):
    fields = {"U": {"array": U}, "W": {"array": W}, "b": {"array": b}} | others
    return {"type": "RNN", "fields": fields}


ARRAYS = [np.ones(shape, "f4") for shape in ((2, 3), (2, 2), 2)]
TANH = {"activation": {"value": "tanh"}}
