"""The same values, laid out in memory in other ways."""

import helpers
import numpy as np


def relaid(array, rng, folder):
    """The array in a random layout; files of memory maps are made in `folder`."""
    way = rng.choice(WAYS)
    return array if array.ndim == 0 or array.size == 0 else way(array, rng, folder)


def as_it_is(array, rng, folder):
    return array


def permuted(array, rng, folder):
    """Its axes lie in another order; Fortran's is one of them."""
    order = rng.permutation(array.ndim)
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def strided(array, rng, folder):
    """Every second or third element of a longer array, along one axis."""
    axis, step = rng.integers(array.ndim), rng.integers(2, 4)
    index = [slice(None)] * array.ndim
    index[axis] = slice(None, None, step)
    return np.repeat(array, step, axis=axis)[tuple(index)]


def reversed_axes(array, rng, folder):
    turn = tuple(slice(None, None, -1 if rng.random() < 0.6 else 1) for _ in range(array.ndim))
    return np.ascontiguousarray(array[turn])[turn]


def part_of_wider(array, rng, folder):
    return np.concatenate([array, array], axis=-1)[..., : array.shape[-1]]


def read_only(array, rng, folder):
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array, rng, folder):
    return helpers.misaligned(np.ascontiguousarray(array))


def mapped(array, rng, folder):
    file = folder / f"{rng.integers(1 << 60)}"
    file.write_bytes(array.tobytes())
    return np.memmap(file, array.dtype, "r", shape=array.shape)


def one_for_all(array, rng, folder):
    """A read-only view with stride 0 along time, if all times are equal."""
    if (array != array[:1]).any():
        return array
    return np.broadcast_to(array[:1], array.shape)


WAYS = [as_it_is, as_it_is, as_it_is, permuted, strided, reversed_axes, part_of_wider, read_only,
        misaligned, mapped, one_for_all]  # fmt: skip
