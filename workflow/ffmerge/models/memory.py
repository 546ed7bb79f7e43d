"""Memory that is not needed any more, back to the system.

What the C library keeps of freed memory would be as much again as a layer's features: activations
have some megabytes each, of which it keeps more the more it has seen freed.
"""

import ctypes
import gc

M_MMAP_THRESHOLD = -3  # glibc's number of the option, from malloc.h
LARGE = 2**22  # bytes; pieces as large as this go back when they are freed


def give_back_large() -> None:
    """From here on, let large pieces go back to the system when they are freed (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Release what is kept of small pieces."""
    drop_cycles()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_cycles() -> None:
    """Let go of a forward pass: its outputs may hang in cycles, which Python frees at some time.

    Only young objects are looked at: all of them would take half a second.
    """
    gc.collect(1)
