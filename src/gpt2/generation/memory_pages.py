"""Advises the system on the pages of this process's memory.

It is advice: whatever the system refuses stays as it is, and nothing happens but on Linux.
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
    """Move this process's large private memory to huge pages.

    In pages of 4 KB, half a gigabyte of weights that is read for every token takes 120,000 look-ups
    of where a page lies, which costs a quarter of the time where memory is virtual twice over.
    Large pages have to be asked for, and what asks for the memory here is LiteRT's C++ code, which
    does not.
    """
    for start, end, access, name in _mappings():
        if access == "rw-p" and name in ("", "[heap]"):
            start = -(-start // HUGE_PAGE) * HUGE_PAGE
            end = end // HUGE_PAGE * HUGE_PAGE
            _advise(start, end, MADV_HUGEPAGE)
            _advise(start, end, MADV_COLLAPSE)


def let_go_of(path: Path) -> None:
    """Drop the pages of a file that is mapped for reading; they come back when they are read.

    LiteRT maps a program and repacks its weights, after which the file's own are not looked at
    any more, but would be counted among this process's memory for as long as it lives.
    """
    wanted = str(path.resolve())
    for start, end, access, name in _mappings():
        if name == wanted and "w" not in access:
            _advise(start, end, MADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int, str, str]]:
    """Start, end, access rights and file of each part of this process's memory."""
    if not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = maps.read().splitlines()
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
