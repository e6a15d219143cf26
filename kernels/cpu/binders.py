"""Writing the addresses of a layer's and of a readout's arrays to their slots: one call for each.

In Python the address of one array takes longer than all of this. An empty array has address 0.
"""

from functools import cache

from ..jit import entry, inner
from .addresses import address
from .slots import HEAD, LAYER


@inner
def _at(array):
    return address(array) if array.size > 0 else 0


@cache
def build_binders():
    """Kernels (layer, back, head), whose arguments are named as their slots."""

    @entry
    def layer(row, params, v, z, live, spare, initial, final, u, bias, w, second):
        row[LAYER.params_at], row[LAYER.v_at], row[LAYER.z_at] = _at(params), _at(v), _at(z)
        row[LAYER.live_at], row[LAYER.spare_at] = _at(live), _at(spare)
        row[LAYER.initial_at], row[LAYER.final_at] = _at(initial), _at(final)
        row[LAYER.u_at], row[LAYER.bias_at] = _at(u), _at(bias)
        row[LAYER.w_at], row[LAYER.second_at] = _at(w), _at(second)

    @entry
    def back(
        row, carry, w_back, second_back, u_back, du, du_total, dsum, dw, dw_total, states_copy,
        x_copy
    ):  # fmt: skip
        row[LAYER.carry_at], row[LAYER.w_back_at] = _at(carry), _at(w_back)
        row[LAYER.second_back_at], row[LAYER.u_back_at] = _at(second_back), _at(u_back)
        row[LAYER.du_at], row[LAYER.du_total_at] = _at(du), _at(du_total)
        row[LAYER.dsum_at], row[LAYER.dw_at] = _at(dsum), _at(dw)
        row[LAYER.dw_total_at] = _at(dw_total)
        row[LAYER.states_copy_at], row[LAYER.x_copy_at] = _at(states_copy), _at(x_copy)

    @entry
    def head(row, v, v_back, c, o, values, total, dv, dv_total, dc):
        row[HEAD.v_at], row[HEAD.v_back_at], row[HEAD.c_at] = _at(v), _at(v_back), _at(c)
        row[HEAD.o_at], row[HEAD.values_at], row[HEAD.total_at] = _at(o), _at(values), _at(total)
        row[HEAD.dv_at], row[HEAD.dv_total_at], row[HEAD.dc_at] = _at(dv), _at(dv_total), _at(dc)

    return layer, back, head
