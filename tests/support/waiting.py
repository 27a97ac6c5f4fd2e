"""One limit for every wait on a process: a hang fails the test soon, with the output so far."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# A process hangs if it uses no processor time for `IDLE` seconds, or if it used `LIMIT` seconds
# and is still running. Neither depends on how busy the machine is. Where processor time is
# unknown, both are seconds on the clock.
LIMIT = 60
IDLE = 30
_NOTHING = 0.1  # seconds of processor time that sleeping threads may use in `IDLE` seconds


class Hang(AssertionError):
    """A process makes no progress."""


class Patience:
    """Watches a process while a test waits for it."""

    def __init__(self, pid: int, output: Callable[[], object] = lambda: ""):
        """Start watching.

        Args:
            output: returns the output so far, for the message of a failure.
        """
        self._pid, self._output = pid, output
        self._first = self._last = processor_time(pid)
        self._since = self._began = time.monotonic()

    def check(self) -> None:
        """Raise `Hang` if the process hangs; call this about every second."""
        used, now = processor_time(self._pid), time.monotonic()
        if used is None or self._first is None or self._last is None:
            if now - self._began > LIMIT:
                raise Hang(f"nothing for {LIMIT} s", self._output())
        elif used - self._first > LIMIT:
            raise Hang(f"still running after {LIMIT} s of processor time", self._output())
        elif used - self._last > _NOTHING:
            self._last, self._since = used, now
        elif now - self._since > IDLE:
            raise Hang(f"idle for {IDLE} s", self._output())


@contextlib.contextmanager
def _killed_on_hang(process: Any) -> Iterator[None]:
    try:
        yield
    except Hang:
        process.kill()
        raise


def processor_time(pid: int) -> float | None:
    """Return the processor time in seconds of a process and its children; None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_time(int(child)) or 0.0 for child in children)


def wait_for(process: Any, output: Callable[[], object] = lambda: "") -> int:
    """Return the exit code of a `Popen` when it ends; kill it and fail if it hangs."""
    patience = Patience(process.pid, output)
    while True:
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            with _killed_on_hang(process):
                patience.check()


def communicate(process: subprocess.Popen, typed: Any = None) -> tuple[Any, Any]:
    """Return the output of a `Popen` with pipes when it ends; kill it and fail if it hangs."""
    so_far: tuple[object, object] = ("", "")
    patience = Patience(process.pid, lambda: so_far)
    while True:
        try:
            return process.communicate(typed, timeout=1)
        except subprocess.TimeoutExpired as waiting:
            so_far, typed = (waiting.output, waiting.stderr), None
            with _killed_on_hang(process):
                patience.check()


def run(words: Sequence[object], typed: Any = None, **options: Any) -> subprocess.CompletedProcess:
    """Run a program as `subprocess.run` does, with captured text, and fail if it hangs.

    Args:
        typed: standard input; nothing without it.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["stdin"] = subprocess.DEVNULL if typed is None else subprocess.PIPE
    with subprocess.Popen([str(word) for word in words], **(pipes | options)) as process:
        out, err = communicate(process, typed)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], object], pid: int, output: Callable[[], object]) -> None:
    """Wait until a process has done something."""
    patience, checked = Patience(pid, output), time.monotonic()
    while not condition():
        if time.monotonic() > checked + 1:
            patience.check()
            checked = time.monotonic()
        time.sleep(0.002)
