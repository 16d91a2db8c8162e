"""Memory of a program under glibc: huge pages for its arrays, and what one call frees kept for the next."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb=1"  # since 2.35: malloc asks the kernel for huge pages
ASKED = "T2I_HUGE_PAGES"  # set where a program has started anew; glibc takes its own variable from some
KEPT = {  # parameters of mallopt (glibc's malloc.h), and their values here
    "M_ARENA_MAX": (-8, 1),  # all threads share the heap that can grow to any size
    "M_MMAP_MAX": (-4, 0),  # large arrays lie in it too, and not in a mapping of their own
    "M_TRIM_THRESHOLD": (-1, -1),  # its end is never given back
}
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Start this program again in its own process, with huge pages on request; where that has no use, do nothing.

    For programs that have done nothing yet. XLA's CPU programs allocate their scratch at each call, and the kernel
    clears and maps it anew: a fifth of a step's time, where that is done in pages of 4 KiB. Malloc reads the
    setting when a process starts. Whoever sets GLIBC_TUNABLES has chosen, and nothing is changed.
    """
    chosen = TUNABLES in os.environ or ASKED in os.environ
    if not chosen and _is_all_there_is() and _libc_can() and _kernel_waits():
        os.environ |= {TUNABLES: HUGE, ASKED: "1"}
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep() -> None:
    """Have malloc keep freed memory, beside huge pages; to be called before there are threads.

    For a network that is run over and over on pictures, a fifth faster so. Not for training: a large block does not
    fit where a small one came to lie, and of 230 million parameters a process grew from 7 to 17 GB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt and "MALLOC_ARENA_MAX" not in os.environ and os.environ.get(TUNABLES, HUGE) == HUGE:
        for parameter, value in KEPT.values():
            mallopt(parameter, value)


def _is_all_there_is() -> bool:
    """Whether Python was started to run this program: not a notebook, a script on stdin, or a debugger's."""
    own = sys.orig_argv[-len(sys.argv) :] == sys.argv and sys.argv[0] != "-"
    return own and bool(sys.executable) and sys.gettrace() is None


def _libc_can() -> bool:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except (AttributeError, OSError, ValueError):  # Windows, macOS, musl
        return False


def _kernel_waits() -> bool:
    """Whether the kernel gives huge pages to those alone who ask."""
    try:
        return "[madvise]" in KERNEL.read_text()
    except OSError:
        return False
