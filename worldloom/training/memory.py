"""How the process keeps its memory."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEEP = 1 << 30


def keep_freed_memory() -> None:
    """Ask the C library to keep what tensors free for the next ones, instead of handing it back to the system.

    Every update allocates the same large tensors again. Handed back, each page is faulted in and zeroed anew: about a
    tenth of a training's time on a CPU. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEEP)
        mallopt(M_TRIM_THRESHOLD, KEEP)


def return_freed_memory() -> None:
    """Hand what is free inside the heap back to the system: about 10 ms.

    For a process that keeps many small tensors made between large passing ones: each that is kept leaves a hole which
    the next large tensor does not fit into. Does nothing where the C library is not glibc.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
