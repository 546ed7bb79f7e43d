"""Return freed memory to the system.

Otherwise the C library keeps as much of it as a layer's features take: activations have some
megabytes each, and its threshold for keeping them grows with every one that is freed.
"""

import ctypes
import gc

M_MMAP_THRESHOLD = -3  # glibc's number of the option, from malloc.h
LARGE = 2**22  # bytes; pieces of this size or more go back when they are freed


def give_back_large() -> None:
    """Return large pieces to the system as soon as they are freed, from now on (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Return the small pieces that are kept."""
    drop_cycles()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_cycles() -> None:
    """Free the outputs of a forward pass now: reference cycles may hold them for a while.

    Collects young objects only; all of them would take half a second.
    """
    gc.collect(1)
