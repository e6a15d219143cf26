"""Where sequences are reset, for the sweeps and the gradients of the recurrent weights.

A reset (t, b) is the number t*B + b: step t of sequence b begins from `restart` (S, H), whatever
came before. They stand in ascending order after the lengths, in one array, the `marks`: so K resets
cost K numbers, and a step without any costs one comparison. A *cursor* is a place in that array.

restart_sums has, in float64, (S, B, H) sums of the derivatives by the states that were set, and
after them the sums of the deltas by W's rows at these steps: the gradient of W takes these times
`restart` when all are added. It is empty where nobody asks for them.
"""

from ..flat import get, put
from ..jit import inner


@inner
def find(marks, B, number):
    """The place of the first reset that is not less than `number`."""
    low, high = B, marks.size
    while low < high:
        middle = (low + high) // 2
        if get(marks, middle) < number:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def seek(marks, B, cursor, number):
    """The same from a place nearby."""
    while cursor > B and get(marks, cursor - 1) >= number:
        cursor -= 1
    while cursor < marks.size and get(marks, cursor) < number:
        cursor += 1
    return cursor


@inner
def is_at(marks, cursor, number):
    """Whether the reset at a place is this one: 1 or 0."""
    return 1 if cursor < marks.size and get(marks, cursor) == number else 0


@inner
def is_before(marks, cursor, number):
    """Whether the reset at a place comes before this one."""
    return cursor < marks.size and get(marks, cursor) < number


@inner
def end_pieces(marks, cursor, row, carry, half, sums, part):
    """Take the derivatives by the states that were set at a step, and let none go further back.

    cursor : of the first reset of the step whose sequence is in the part; row : t*B
    carry : (S, 2, B, H), of which `half` holds the derivatives by the states before the step
    part : see `sweeps`
    """
    _, high, left, right = part
    STATES, _, B, H = carry.shape
    while cursor < marks.size and get(marks, cursor) < row + high:
        b = get(marks, cursor) - row
        for k in range(STATES):
            at, place = ((2 * k + half) * B + b) * H, (k * B + b) * H
            if sums.size > 0:
                for j in range(left, right):
                    put(sums, place + j, get(sums, place + j) + get(carry, at + j))
            for j in range(left, right):
                put(carry, at + j, 0)
        cursor += 1


@inner
def index_kept(rows, start, live, count, marks, t, n, B):
    """Part the rows of n steps into those that read the state before them, and those set.

    live : where in `rows` the rows that count are, `count` of them, last step first
    They are put into rows[start:], the former first; returns how many these are.
    """
    kept, cut = 0, 0
    cursor, number = find(marks, B, (t + n) * B), 0
    first = find(marks, B, t * B)
    resets = cursor - first
    for n_ in range(count):
        number = get(rows, live + n_)
        cursor = seek(marks, B, cursor, t * B + number)
        if is_at(marks, cursor, t * B + number):
            put(rows, start + count - resets + cut, number)
            cut += 1
        else:
            put(rows, start + kept, number)
            kept += 1
    return kept
