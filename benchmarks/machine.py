"""What the machine is, how fast it reads memory (the limit of batch 1), and who else is at work."""

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
# Names of those that make processors of one name differ most.
VECTORS = (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AMX", "amx_"))
ARRAY = 1 << 29  # bytes; far more than any cache
PASSES = 8
PAUSE = 1.0  # seconds over which the machine is watched


def describe() -> dict:
    """Processor, cores, instruction sets, system."""
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.MULTILINE)
    words = flags[1].split() if flags else []
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    vectors = [label for label, flag in VECTORS if any(word.startswith(flag) for word in words)]
    return {
        "cpu": f"{name} ({', '.join(vectors)})" if vectors else name,
        "cores": threads(),
        "flags": [word for word in words if re.fullmatch(FLAGS, word)],
        "memory": int(memory[1]) * 1024 if memory else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def environment() -> dict[str, str]:
    """Return the environment for processes to measure.

    Bytecode is cached, as it is for a user; some environments turn that off.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


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


class Others:
    """What part of the machine's processors is not at the disposal of one process.

    That is, used by other processes, or by other machines on the same hardware. 0 where the system
    does not tell.
    """

    def __init__(self, process: int):
        self._process = process
        self._before = self._times()

    def share(self) -> float:
        """The part since the beginning, 0 to 1."""
        everything, others = (
            now - before for now, before in zip(self._times(), self._before, strict=True)
        )
        return max(others, 0) / everything if everything else 0.0

    def _times(self) -> tuple[int, int]:
        """In ticks: of all processors, and of those that others were given."""
        fields = [int(field) for field in _read("/proc/stat").partition("\n")[0].split()[1:9]]
        if not fields:
            return 0, 0
        idle = fields[3] + fields[4]
        # What stands before the last bracket is the process's name.
        own = _read(f"/proc/{self._process}/stat").rpartition(")")[2].split()
        return sum(fields), sum(fields) - idle - int(own[11]) - int(own[12])


def taken() -> float:
    """The part of the processors that others use just now, 0 to 1."""
    others = Others(os.getpid())
    time.sleep(PAUSE)
    return others.share()


def wait_for_quiet(share: float, seconds: float) -> None:
    """Wait until others use less than a share of the processors; no longer than so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if taken() < share:
            return


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
