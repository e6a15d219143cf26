"""What stands where in the int64 arrays through which Python and compiled code speak of a lane.

A name that ends in _at is an address, 0 where there is no such array. A place is a pair of an
address and the bytes of a step: step t of the lane lies t times so many bytes further on; a step of
0 bytes is a buffer that takes every span at its start. Bytes, unless a name says otherwise, are
those of one number times the shape that `kernels.layer` gives.
"""

from collections import namedtuple


def _slots(name, text):
    names = text.split()
    return namedtuple(name, names)(*range(len(names))), len(names)


LANE, LANE_SIZE = _slots(
    "Lane",
    # Of the call.
    """mailbox_at mailbox_size threads parts chunk batch item layers marks_at resets mirror_at
    steps call_steps back_steps flush_steps room arena_at checkpoint
    x_at x_step h_at h_step dx_at dx_step dh_at dh_step dh_steps zeros_at
    rows_at p_rows_at counts_at whole has_loss left_at layers_at copies_at copies
    between_steps
    """
    # Bit s is set if Python takes over where the walk returns with status s, at every span.
    """asks
    """
    # Layers side by side: see `wavefront`.
    """wave wave_least wave_lanes_at wave_left_at wave_marks_at
    """
    # Leaves beside each other: see `leaves`.
    """leaf_steps leaf_bits leaf_least arena_end leaf_lanes_at leaf_layers_at leaf_left_at
    leaf_marks_at ahead_z_at ahead_v_at leaf_start leaf_base leaf_down
    ahead_start ahead_stop ahead_to ahead_base ahead_down ahead_from
    """
    # Another lane that is walked beside this one, if any; of that other, its rows; and the threads
    # that each of the two has, with their mailboxes.
    """beside_at actions_at members mailboxes_at
    """
    # Where the walk stands.
    """budget used status row rows phase at leg start stop half
    live current stored carved cache_start cache_stop cache_base continues since_flush noted""",
)

LAYER, LAYER_SIZE = _slots(
    "Layer",
    """forward reverse left drop hidden inputs tokens states residuals members
    z_at live_at spare_at states_at residuals_at rows outputs_at below_at carry_at
    initial_at final_at
    u_at u_back_at bias_at w_at w_back_at second_at second_back_at params_at v_at v_rows
    w_chains w_back_chains second_chains
    du_at du_total_at dsum_at dw_at dw_total_at delta_at delta_step states_copy_at x_copy_at
    mask_key mask_threshold mask_scale mask_start mask_first ordered_at p_rows_at counts_at
    restart_at restart_sums_at final_carry_at""",
)

HEAD, HEAD_SIZE = _slots(
    "Head",
    """readout loss factor outputs v_at v_back_at c_at o_at y_at y_step targets_at targets_step
    weights_at weights_step weights_each values_at total_at dv_at dv_total_at dc_at""",
)

LEFT, LEFT_SIZE = _slots(
    "Left",  # the gradients of a chunk that are still to be done: see `reverse_flow`
    """open started lane_at layer_at head_at counts next_layer_at next_head_at next_counts
    x_at dx_at states_at delta_at start steps half
    live_rows piece_rows block v_pieces w_pieces pieces""",
)

COPY, COPY_SIZE = _slots(
    "Copy",  # what is copied to or from a buffer for a span, at the moment of that status: `copies`
    """moment way at time_step batch_step step width item number against buffer_at
    classes weights_at scored waits""",
)

STEPPER, STEPPER_SIZE = _slots(
    "Stepper",  # behind the slots of a lane that goes on step by step, without end: see `stepping`
    """run_at busy alone_at alone_size threads wave_least classes span x_row out_row
    readout outputs v_at c_at hidden_at""",
)

# All of them lie in one array: the lane's, the head's, what is left, and those of each layer.
HEAD_AT = LANE_SIZE
LEFT_AT = HEAD_AT + HEAD_SIZE
LAYERS_AT = LEFT_AT + LEFT_SIZE

# Rows of a schedule: a kind and three times. The names are those of `memory.schedules`.
ACTIONS = {
    name: number
    for number, name in enumerate(
        ("advance", "store", "restore", "discard", "cache", "reverse", "window", "keep")
    )
}
ADVANCE, STORE, RESTORE, DISCARD, CACHE, REVERSE, WINDOW, KEEP = range(8)

# Why a walk has returned.
DONE, TIME, READ, WRITE, READ_BACK, WRITE_BACK, ADD_STATE, FLUSH = range(8)

# The ways of a copy: from an array to a buffer, numbers as they are, ids or loss weights; and from
# a buffer to an array, whose numbers are overwritten or added to.
FLOATS, IDS, WEIGHTS, PUT, ADD = range(5)

# What numbers an array holds.
UNSIGNED, SIGNED, FLOATING = range(3)
