"""Memory that is not needed any more, back to the system."""

import ctypes
import gc


def drop_cycles() -> None:
    """Let go of a forward pass: its outputs hang in cycles, which Python frees at some time.

    Only young objects are looked at: all of them would take half a second.
    """
    gc.collect(1)


def give_back() -> None:
    """Release what the C library keeps of freed memory, where it can (glibc).

    Activations of a few megabytes each are freed, but stay with the process: between the stages of
    a compression that would be as much again as a layer's features.
    """
    drop_cycles()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
