"""Copies of a span between an array of any layout and the buffer that kernels work in.

A row of slots COPY describes one, in bytes: where the array is and how far its next time, sequence
and number are, which may be backwards. Time may run against the array's, within the length of each
sequence or, where sequences are reset, within each of their pieces. The walk makes copies at the
moments at which it would otherwise return to Python.
"""

import numpy as np

from ..flat import get, put
from ..jit import inner, noinline
from .addresses import (
    as_unsigned,
    copy_bytes,
    doubles,
    singles,
    uint8s,
    uint16s,
    uint32s,
    view,
    words,
)
from .slots import ADD, COPY, COPY_SIZE, FLOATING, FLOATS, IDS, LANE, SIGNED, WEIGHTS
from .workers import finish

_EXPONENT = 0x7FF << 52  # the bits of a float64's exponent: none is set in a subnormal one
_SINGLE_EXPONENT, _SINGLE_FRACTION, _SINGLE_SIGN = 0xFF << 23, (1 << 23) - 1, 1 << 31
_LEAST_SINGLE = 2.0**-149


@inner
def _bits(at, item):
    """A number of so many bytes, as bits of an int64 with zeros before them."""
    if item == 8:
        return get(words(at), 0)
    if item == 4:
        return np.int64(get(uint32s(at), 0))
    if item == 2:
        return np.int64(get(uint16s(at), 0))
    return np.int64(get(uint8s(at), 0))


@inner
def _integer(at, item, number):
    """An integer; one of uint64 beyond int64 turns negative."""
    bits = _bits(at, item)
    if number == SIGNED:
        shift = 64 - 8 * item
        return (bits << shift) >> shift
    return bits


@inner
def _single(at):
    """A float32 as float64, subnormal ones too, which the processor would flush to zero."""
    bits = _bits(at, 4)
    if bits & _SINGLE_EXPONENT == 0:
        least = _LEAST_SINGLE * (bits & _SINGLE_FRACTION)
        return -least if bits & _SINGLE_SIGN else least
    return np.float64(get(singles(at), 0))


@inner
def _weight(at, item, number):
    """A loss weight; one that is 0 for the kernels, which flush subnormal numbers, becomes 0."""
    if number == FLOATING:
        if item == 4:
            return _single(at)
        return get(doubles(at), 0) if get(words(at), 0) & _EXPONENT else 0.0
    if number == SIGNED:
        return np.float64(_integer(at, item, number))
    return np.float64(as_unsigned(_bits(at, item)))


@inner
def _move(to, to_step, source, source_step, count, item):
    """Copy numbers that are so many bytes apart."""
    if to_step == item and source_step == item:
        copy_bytes(to, source, count * item)
    elif item == 8:
        for j in range(count):
            put(words(to + j * to_step), 0, get(words(source + j * source_step), 0))
    else:
        for j in range(count):
            put(uint32s(to + j * to_step), 0, get(uint32s(source + j * source_step), 0))


@inner
def _add(to, to_step, source, count, item):
    """Add numbers that lie one after the other to some that are so many bytes apart."""
    for j in range(count):
        if item == 8:
            place = doubles(to + j * to_step)
            put(place, 0, get(place, 0) + get(doubles(source + j * item), 0))
        else:
            single = singles(to + j * to_step)
            put(single, 0, get(single, 0) + get(singles(source + j * item), 0))


@inner
def _mirrored(lengths, pieces, b, t):
    """The time of step t of a sequence where time is reversed; negative past its end.

    pieces : the address of int64 numbers: for each sequence where its resets begin among them, and
        the end of those of the last one; after these, the times of the resets. Or 0
    """
    end = lengths[b]
    if pieces == 0 or t >= end:
        return end - 1 - t
    place = words(pieces)
    first, last = get(place, b), get(place, b + 1)
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if get(place, middle) <= t:
            low = middle + 1
        else:
            high = middle
    begin = get(place, low - 1) if low > first else 0
    return begin + (get(place, low) if low < last else end) - 1 - t


@inner
def _copy(copy, lengths, pieces, start, stop, B):
    """Make a copy for a span; returns False at an id that does not exist and counts.

    What lies past a sequence's end is copied from time 0 where time is reversed, since it does not
    count, and is not copied back.
    """
    noinline()
    way, width, item, number = copy[COPY.way], copy[COPY.width], copy[COPY.item], copy[COPY.number]
    step, weights_at = copy[COPY.step], copy[COPY.weights_at]
    reads = way in (FLOATS, IDS, WEIGHTS)
    size = width * (item if way not in (IDS, WEIGHTS) else 8)
    for t in range(start, stop):
        for b in range(B):
            row, time = (t - start) * B + b, t
            if copy[COPY.against]:
                time = _mirrored(lengths, pieces, b, t)
                if time < 0:
                    if not reads:
                        continue
                    time = 0
            at = copy[COPY.at] + time * copy[COPY.time_step] + b * copy[COPY.batch_step]
            buffer = copy[COPY.buffer_at] + row * size
            if way == IDS:
                value = _integer(at, item, number)
                if value < 0 or value >= copy[COPY.classes]:
                    weighs = weights_at == 0 or get(doubles(weights_at), row) != 0
                    if t < lengths[b] and weighs:
                        return False
                    value = 0  # those that do not count may hold anything
                put(words(buffer), 0, value)
            elif way == WEIGHTS:
                for j in range(width):
                    put(doubles(buffer + 8 * j), 0, _weight(at + j * step, item, number))
            elif way == FLOATS:
                _move(buffer, item, at, step, width, item)
            elif way == ADD:
                _add(at, step, buffer, width, item)
            else:
                _move(at, step, buffer, item, width, item)
    return True


@inner
def copied(lane, moment):
    """Make the copies of a moment for the lane's span; returns False if Python is needed."""
    if (lane[LANE.asks] >> moment) & 1:
        return False
    place = words(lane[LANE.copies_at])
    copies = view(place, lane[LANE.copies_at], (lane[LANE.copies], COPY_SIZE))
    lengths = view(place, lane[LANE.marks_at], (lane[LANE.batch],))
    pieces = lane[LANE.mirror_at]
    for index in range(lane[LANE.copies]):
        copy = copies[index]
        if copy[COPY.moment] != moment or (copy[COPY.scored] and lane[LANE.leg]):
            continue
        if copy[COPY.waits]:
            mailbox = view(place, lane[LANE.mailbox_at], (lane[LANE.mailbox_size],))
            finish(mailbox, words(lane[LANE.left_at]))
        start, stop = lane[LANE.start], lane[LANE.stop]
        if not _copy(copy, lengths, pieces, start, stop, lane[LANE.batch]):
            return False
    return True
