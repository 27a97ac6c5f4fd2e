"""Has the system keep large memory in large pages.

In pages of 4 KB, half a gigabyte of weights that is read for every token takes 120,000 look-ups of
where a page lies, which costs a quarter of the time where memory is virtual twice over. Large pages
have to be asked for, and what asks for the memory here is LiteRT's C++ code, which does not.
"""

from __future__ import annotations

import ctypes
import re
import sys

HUGE_PAGE = 1 << 21  # bytes
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # from linux/mman.h; the second is there since Linux 6.1


def use_huge_pages() -> None:
    """Move this process's large private memory to huge pages; does nothing but on Linux.

    It is advice: whatever the system refuses stays as it is.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        advise = ctypes.CDLL(None).madvise
        with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
            lines = maps.readlines()
    except (OSError, AttributeError):
        return
    for line in lines:
        private = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0\s*(?:\[heap\])?$", line)
        if not private:
            continue
        start = -(-int(private[1], 16) // HUGE_PAGE) * HUGE_PAGE
        size = int(private[2], 16) // HUGE_PAGE * HUGE_PAGE - start
        if size > 0:
            for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):
                advise(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(advice))
