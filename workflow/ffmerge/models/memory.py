"""Check the device to compute on, and return freed memory to the system.

Otherwise the C library keeps as much of it as a layer's features take: activations have some
megabytes each, and its threshold for keeping them grows with every one that is freed.
"""

import ctypes
import gc
import os
import resource

import torch

M_MMAP_THRESHOLD = -3  # glibc's number of the option, from malloc.h
LARGE = 2**22  # bytes; pieces of this size or more go back when they are freed


def check_device(device: str) -> None:
    """Raise ValueError unless this machine has a device: `cpu`, `cuda`, or one GPU, `cuda:1`.

    Call it before anything is loaded: torch fails only when it uses the device, and the Trainer
    computes on the processor where there is no GPU.
    """
    try:
        place = torch.device(device)
        module = torch.get_device_module(place)
    except RuntimeError:
        raise ValueError(f"device {device!r}: torch knows none such; use cpu or cuda") from None
    n_devices = module.device_count() if module.is_available() else 0
    if not n_devices:
        raise ValueError(
            f"device {device!r}: this machine has no such device that torch can use; use cpu, or "
            "torch with CUDA on a machine with a GPU"
        )
    if place.type != "cpu" and (place.index or 0) >= n_devices:
        raise ValueError(f"device {device!r}: this machine has {n_devices}, numbered from 0")


def check_room(n_bytes: int, what: str) -> None:
    """Raise ValueError if n_bytes are more than a process may have on this machine."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    if n_bytes > most:
        raise ValueError(f"{what} take {n_bytes:,} bytes of memory, and there are {most:,}")


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
