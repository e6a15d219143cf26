"""Files of models: intact ones load; all others raise a ValueError that names them, at once."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from checks import rejected
from model_files import ARRAYS, MODELS, TANH, archive, file_of, header, npy, rnn, same, saved

import fastbptt as fb


def damaged(data, others, rng):
    """A file with one to three mutations: flips, cuts, splices, insertions, swapped parts."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        a, b = sorted(rng.integers(0, len(data) + 1, 2).tolist())
        kind = rng.integers(0, 7)
        if kind == 0 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 1 and data:
            data[rng.integers(len(data))] = int(rng.integers(256))
        elif kind == 2:
            del data[a : min(b, a + int(rng.integers(1, 100)))]
        elif kind == 3:
            del data[a:]
        elif kind == 4:
            data[a:a] = rng.bytes(int(rng.integers(1, 20)))
        elif kind == 5:
            other = others[rng.integers(len(others))]
            data = data[:a] + other[min(a, len(other)) :]
        else:
            data[a:b] = (
                data[a:b][::-1] if b - a < 50 else data[(a + b) // 2 : b] + data[a : (a + b) // 2]
            )
    return bytes(data)


def swapped(data, other, rng):
    """The members of one file under the names of those of another, some packed anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as one, zipfile.ZipFile(io.BytesIO(other)) as two:
        names = one.namelist()
        contents = [file.read(name) for file in (one, two) for name in file.namelist()]
    method = zipfile.ZIP_DEFLATED if rng.integers(2) else zipfile.ZIP_STORED
    return archive([(name, contents[rng.integers(len(contents))]) for name in names], method)


def valid_or_refused(file, name):
    """Whether the file loads; if not, assert that it raises the right error."""
    try:
        model = fb.load(file)
    except ValueError as error:
        assert type(error) is ValueError and name in str(error), repr(error)
        return False
    assert all(array.dtype in ("f4", "f8") for array in model.arrays())
    same(model.replace_arrays(model.arrays()), model)  # it is made of what such a model is made of
    same(fb.load(io.BytesIO(saved(model))), model)
    return True


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_file_loads_or_is_a_value_error_that_names_it(part, tmp_path):
    rng = np.random.default_rng(part)
    whole = [saved(model) for model in MODELS.values()]
    path = tmp_path / "mutated.npz"
    loaded = 0
    for number in range(500):
        data = whole[rng.integers(len(whole))]
        swap = number % 5 == 0
        data = swapped(data, whole[rng.integers(4)], rng) if swap else damaged(data, whole, rng)
        path.write_bytes(data)
        loaded += valid_or_refused(path, "mutated.npz")
    assert 0 < loaded < 400


def test_every_flip_of_a_byte_of_a_small_file_is_seen_or_harmless():
    data = saved(fb.RNN.init(1, 1, rng=0))
    for at in range(len(data)):
        for value in (data[at] ^ 1, data[at] ^ 128, 255 - data[at]):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            valid_or_refused(io.BytesIO(changed), "no name")


def deep(depth):
    """Networks in networks."""
    return {"type": "Network", "fields": {"layer": deep(depth - 1)}} if depth else {"value": 0}


NESTED = "[" * 100_000 + "]" * 100_000
HOSTILE = {
    "a number": file_of({"value": 3}),
    "an array": file_of({"array": "array0"}, ARRAYS[:1]),
    "a tuple": file_of([{"array": "array0"}], ARRAYS[:1]),
    "a definition": file_of({"defined": ["Activation", "timed_files"]}),
    "a list as format": file_of(rnn(**TANH), ARRAYS, [1]),
    "a later format": file_of(rnn(**TANH), ARRAYS, 2),
    "no class of models": file_of({"type": "Model", "fields": {}}),
    "a class without arrays": file_of({"type": "Recurrent", "fields": {}}),
    "a class that is no name": file_of({"type": ["RNN"], "fields": {}}),
    "fields of another class": file_of(rnn(V={"value": 1}), ARRAYS),
    "a field too few": file_of({"type": "RNN", "fields": {}}),
    "an array that is not there": file_of(rnn(b="array9"), ARRAYS),
    "an array that nobody names": file_of(rnn(**TANH), [*ARRAYS, np.ones(2, "f4")]),
    "an array named twice": file_of(rnn(U="array1", **TANH), ARRAYS),
    "arrays that do not fit": file_of(rnn(**TANH), ARRAYS[::-1]),
    "a table as value": file_of(rnn(activation={"value": {}}), ARRAYS),
    "whole numbers": file_of(rnn(**TANH), [array.astype(int) for array in ARRAYS]),
    "objects": file_of(rnn(**TANH), [*ARRAYS[:2], np.array([print, print], object)]),
    "text as weights": file_of(rnn(**TANH), [*ARRAYS[:2], np.array(["a", "b"])]),
    "deep models": file_of(deep(30)),
    "deep lists": archive([("structure.npy", npy(np.array(NESTED)))]),
    "no JSON": archive([("structure.npy", npy(np.array("model")))]),
    "a long number": archive([("structure.npy", npy(np.array("9" * 5000)))]),
    "a list": archive([("structure.npy", npy(np.array("[1, 2]")))]),
    "a structure of numbers": archive([("structure.npy", npy(np.ones(3)))]),
    "a pickle": archive([("structure.npy", pickle.dumps(MODELS["bare"].arrays()))]),
    "a pickled array": archive([("structure.npy", npy(np.array([{}], object)))]),
    "a name without .npy": archive([("structure", npy(np.array("[]")))]),
    "another packing": archive([("structure.npy", npy(np.array("[]")))], zipfile.ZIP_BZIP2),
    "a header cut short": archive([("structure.npy", npy(np.array("[]"))[:30])]),
    "a header that is a program": archive([("structure.npy", header("__import__('os')", ()))]),
    "a header of an open string": archive([("structure.npy", header("<U1", ())[:-9] + b"'''\n")]),
    "a header of many ones": archive([("structure.npy", header("<f4", (1,) * 9000))]),
    "a header of digits": archive(
        [("structure.npy", header("<f4", ()).replace(b"()", b"(" + b"1" * 9000 + b")"))]
    ),
    "a member twice": b"",
    "an encrypted member": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_file_is_a_value_error_that_names_it(what, tmp_path):
    data = HOSTILE[what]
    if what == "a member twice":
        data = archive([("structure.npy", npy(np.array("[]")))] * 2)
    if what == "an encrypted member":
        data = bytearray(file_of(rnn(**TANH), ARRAYS))
        for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            data[data.index(signature) + flags] |= 1
    path = tmp_path / "hostile.npz"
    path.write_bytes(data)
    rejected(lambda: fb.load(path), "hostile.npz", errors=(ValueError,))
    rejected(lambda: fb.load(io.BytesIO(data)), "no name", errors=(ValueError,))


def claims(shape, descr="<f4", stored=b""):
    """A file whose array0 claims a shape that it does not hold."""
    structure = npy(np.array(json.dumps({"format": 1, "model": rnn(**TANH)})))
    others = [(f"array{n}.npy", npy(ARRAYS[n])) for n in (1, 2)]
    bad = ("array0.npy", header(descr, shape) + stored)
    return archive([("structure.npy", structure), bad, *others])


def with_size(data, size):
    """The file with the sizes in the zip's directory, of its second member, replaced."""
    data = bytearray(data)
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[at + 20 : at + 28] = struct.pack("<LL", size, size)
    return bytes(data)


BOMBS = {
    "terabytes": lambda: claims((10**6, 10**6)),
    "more bytes than fit into 64 bits": lambda: claims((10**18, 10**18, 10**18)),
    "a long text": lambda: claims((), "<U999999999"),
    "gigabytes in the directory": lambda: with_size(claims((2**15, 2**15)), 2**32 - 2),
    "zeros, packed": lambda: archive(
        [("structure.npy", header("<U16777216", ()) + bytes(1 << 26)), ("array0.npy", b"")],
        zipfile.ZIP_DEFLATED,
    ),
    "zeros behind a header, packed": lambda: archive(
        [("structure.npy", npy(np.array("[]"))),
         ("array0.npy", header("<f4", (3,)) + bytes(1 << 26))],
        zipfile.ZIP_DEFLATED,
    ),
    "zeros that no model has, packed": lambda: archive(
        [("structure.npy", npy(np.array(json.dumps({"format": 1, "model": rnn(**TANH)})))),
         ("array0.npy", npy(np.zeros((2, 1 << 23), "f4"))),
         ("array1.npy", npy(np.zeros((3, 3), "f4"))), ("array2.npy", npy(ARRAYS[2]))],
        zipfile.ZIP_DEFLATED,
    ),
    "a directory of many members": lambda: archive((f"{n:05000}.npy", b"") for n in range(2_000)),
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_what_a_file_claims_and_does_not_hold_takes_no_memory(what, tmp_path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(BOMBS[what]())
    tracemalloc.start()
    try:
        rejected(lambda: fb.load(path), "bomb.npz", errors=(ValueError,))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25


def test_an_activation_is_no_cell():
    def forward(a, s):
        return (a[0] + a[1],), ()

    def reverse(ds, s, previous, residuals):
        return (ds[0], ds[0]), (0.0,)

    cell = fb.Cell("two_gates", 2, forward, reverse)
    rejected(lambda: fb.RNN(*ARRAYS, activation=cell), "activation")
    data = file_of(rnn(activation={"defined": ["Cell", "two_gates"]}), ARRAYS)
    rejected(lambda: fb.load(io.BytesIO(data)), "activation", errors=(ValueError,))


def test_a_file_of_plain_arrays_is_said_to_hold_no_structure(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    with pytest.raises(ValueError, match=r"written by save\(\).* \(it holds no 'structure'\)"):
        fb.load(tmp_path / "data.npz")
