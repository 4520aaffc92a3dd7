"""Memory of a training on CPUs: what a step frees, the next one asks for again."""

import ctypes

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST_KEPT = 2**31 - 1  # bytes; what an int takes


def keep_freed_memory() -> bool:
    """Have this process keep up to 2 GB of freed memory; False where the C library is not glibc.

    By itself glibc hands feature maps back to the system when they are freed, and each step then
    pays a page fault for every 4 KB of them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # No block in pages of its own, whatever its size: a threshold takes 32 MB at most, and the
    # maps of a batch of large films are larger.
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
