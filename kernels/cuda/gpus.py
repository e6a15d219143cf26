"""The current GPU: its properties and its free memory."""

from functools import lru_cache

from . import runtime
from .layout import Card

# The simulator's card: no warps, so that blocks have no more threads than needed.
SIMULATED = Card((0, 0), 4, 1 << 16, warp=1)
_SIMULATED_BYTES = 1 << 33
_SIMULATED_CLOCK = 3e5  # cycles a second


def current():
    """The ordinal of the current device."""
    return 0 if runtime.SIMULATED else runtime.arrays().cuda.runtime.getDevice()


@lru_cache(maxsize=16)
def card(ordinal):
    """The Card of a device."""
    if runtime.SIMULATED:
        return SIMULATED
    found = runtime.arrays().cuda.Device(ordinal)
    capability, facts = found.compute_capability, found.attributes
    capability = int(capability[:-1]), int(capability[-1])
    return Card(
        capability,
        facts["MultiProcessorCount"],
        facts["MaxSharedMemoryPerBlockOptin"],
        registers=facts["MaxRegistersPerMultiprocessor"],
        halves=2 if capability in ((7, 0), (8, 0), (9, 0), (10, 0)) else 64,
    )


@lru_cache(maxsize=16)
def clock(ordinal):
    """Cycles a second."""
    if runtime.SIMULATED:
        return _SIMULATED_CLOCK
    return runtime.arrays().cuda.Device(ordinal).attributes["ClockRate"] * 1e3


@lru_cache(maxsize=16)
def name(ordinal):
    """The card's name."""
    if runtime.SIMULATED:
        return "Numba's simulator"
    text = runtime.arrays().cuda.runtime.getDeviceProperties(ordinal)["name"]
    return text.decode() if isinstance(text, bytes) else text


def free_bytes(ordinal):
    """Bytes that can be allocated."""
    if runtime.SIMULATED:
        return _SIMULATED_BYTES
    cupy = runtime.arrays()
    with cupy.cuda.Device(ordinal):
        return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


# For checks without a GPU, a card of each capability: multiprocessors and shared memory of a block
# from NVIDIA's CUDA C++ Programming Guide and data sheets.
KNOWN = {
    "T4": Card((7, 5), 40, 65536, halves=32),
    "A100": Card((8, 0), 108, 166912),
    "RTX 3090": Card((8, 6), 82, 101376, halves=64),
    "L40": Card((8, 9), 142, 101376, halves=64),
    "H100": Card((9, 0), 132, 232448),
    "B200": Card((10, 0), 148, 232448),
}
