"""Memory of a process under glibc: what a step frees stays, for the next step."""

import ctypes
import os

# Parameters of mallopt (glibc's malloc.h), and their values here.
KEPT = {
    "M_ARENA_MAX": (-8, 1),  # all threads share the heap that can grow to any size
    "M_MMAP_MAX": (-4, 0),  # large arrays lie in it too, and not in a mapping of their own
    "M_TRIM_THRESHOLD": (-1, -1),  # its end is never given back
}


def keep() -> None:
    """Have malloc keep freed memory; to be called before there are threads. Without glibc it does nothing.

    XLA's CPU programs allocate their scratch at each call. As glibc is set up, each step then gives hundreds of
    megabytes back to the kernel, which clears and maps them again page by page for the next one. Whoever sets
    MALLOC_ARENA_MAX or GLIBC_TUNABLES has chosen otherwise, and nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt and "MALLOC_ARENA_MAX" not in os.environ and "GLIBC_TUNABLES" not in os.environ:
        for parameter, value in KEPT.values():
            mallopt(parameter, value)
