"""Memory of a training on CPUs: what a step frees, the next one asks for again."""

import ctypes

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_KEPT = 2**31 - 1  # bytes; what an int takes
_LARGEST_ON_HEAP = 2**25  # bytes; glibc allows no more


def keep_freed_memory() -> bool:
    """Have this process keep up to 2 GB of freed memory; False where the C library is not glibc.

    By itself glibc hands feature maps back to the system when they are freed, and each step then
    pays a page fault for every 4 KB of them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
