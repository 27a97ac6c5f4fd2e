"""Advise the operating system on the memory pages of this process (Linux only).

Advice that the system does not take changes nothing.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HUGE_PAGE = 1 << 21  # bytes
MADV_DONTNEED, MADV_HUGEPAGE, MADV_COLLAPSE = 4, 14, 25  # linux/mman.h; the last since Linux 6.1

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")


def use_huge_pages() -> None:
    """Move the large private memory of this process to huge pages.

    Half a gigabyte of weights takes 120,000 pages of 4 KB, and reading all of them for each token
    causes so many TLB misses that a token takes a quarter longer on a virtual machine. Huge pages
    have to be requested, and LiteRT, which allocates this memory, does not do so.
    """
    for start, end, access, name in _mappings():
        if access == "rw-p" and name in ("", "[heap]"):
            start = -(-start // HUGE_PAGE) * HUGE_PAGE
            end = end // HUGE_PAGE * HUGE_PAGE
            _advise(start, end, MADV_HUGEPAGE)
            _advise(start, end, MADV_COLLAPSE)


def let_go_of(path: Path) -> None:
    """Release the pages of a file that is mapped for reading; they are loaded again when read.

    LiteRT maps a program and repacks its weights. It does not read the file afterwards, but the
    pages would count as memory of this process until it ends.
    """
    wanted = str(path.resolve())
    for start, end, access, name in _mappings():
        if name == wanted and "w" not in access:
            _advise(start, end, MADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int, str, str]]:
    """Yield start, end, access rights and file name of each memory mapping of this process."""
    if not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = maps.read().split("\n")  # splitlines() would split names at U+2028 and others
    except OSError:
        return
    for line in lines:
        found = _MAPPING.fullmatch(line)
        if found:
            yield int(found[1], 16), int(found[2], 16), found[3], found[5]


def _advise(start: int, end: int, advice: int) -> None:
    if end > start:
        try:
            advise = ctypes.CDLL(None).madvise
        except (OSError, AttributeError):
            return
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(advice))
