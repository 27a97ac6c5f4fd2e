"""What the machine is, and how fast it reads memory, which is what bounds batch 1."""

from __future__ import annotations

import os
import platform
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from systems import threads

# Instructions that decide how fast matrices are multiplied.
FLAGS = r"avx|avx2|fma|f16c|avx512f|avx512_vnni|avx512_bf16|avx_vnni|amx_\w+|asimd\w*|i8mm|sve\d?"
ARRAY = 1 << 29  # bytes; far more than any cache
PASSES = 8


def describe() -> dict:
    """Processor, cores, instruction sets, system."""
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.MULTILINE)
    words = flags[1].split() if flags else []
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": threads(),
        "flags": [word for word in words if re.fullmatch(FLAGS, word)],
        "memory": int(memory[1]) * 1024 if memory else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


class Reader:
    """Reads a large array again and again, by looking for the largest of its bytes."""

    def __init__(self) -> None:
        self._array = np.ones(ARRAY, np.uint8)

    def bandwidth(self, workers: int) -> float:
        """Bytes a second that so many threads read together; the best of a few passes."""
        parts = np.array_split(self._array, workers)
        seconds = []
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(PASSES):
                start = time.perf_counter()
                list(pool.map(np.max, parts))
                seconds.append(time.perf_counter() - start)
        return ARRAY / min(seconds)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
