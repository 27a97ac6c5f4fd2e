"""Pages of memory: what is advised changes no content, and is followed where the system can."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2.generation import memory_pages

linux = pytest.mark.skipif(sys.platform != "linux", reason="the advice is for Linux")


def in_memory(path: Path) -> int:
    """Kilobytes of a mapped file that this process holds."""
    held, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1])
    return held


@linux
def test_a_mapped_file_is_let_go_of_and_can_still_be_read(tmp_path: Path) -> None:
    path, other = tmp_path / "with a space.bin", tmp_path / "other.bin"
    for file in (path, other):
        file.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, other.open("rb") as second:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        kept = mmap.mmap(second.fileno(), 0, prot=mmap.PROT_READ)
        content = mapped[:], kept[:]
        assert in_memory(path) == in_memory(other) == 1024
        memory_pages.let_go_of(path)
        assert in_memory(path) == 0
        assert in_memory(other) == 1024
        assert (mapped[:], kept[:]) == content


def test_huge_pages_hold_what_the_small_ones_did() -> None:
    numbers = np.random.default_rng(5).standard_normal(3_000_000)
    copy = numbers.copy()
    memory_pages.use_huge_pages()
    assert (numbers == copy).all()
