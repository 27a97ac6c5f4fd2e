"""Runs commands of the toolkit in processes that can be killed, with slow writes.

Importing TensorFlow takes seconds, forking does not: the caller imports TensorFlow without using
it, and each command runs its script in a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import runpy
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from gpt2 import files, jsonl
from gpt2.checkpoint.run import RunFolder
from gpt2.data import shards
from gpt2.download import transfer
from gpt2.training import run_log
from gpt2.training.loop import Loop
from tests.support import waiting

REPOSITORY = Path(__file__).resolve().parents[2]


class Seen(ctypes.Structure):
    """What a child is doing, in memory shared with its parent, so that it survives a kill."""

    _fields_ = (
        ("writing", ctypes.c_int),  # files and folders being written
        ("first", ctypes.c_long),  # first step of this training, 0 before it
        ("step", ctypes.c_long),  # last finished step
        ("saving", ctypes.c_long),  # step of the last save that began
        ("saved", ctypes.c_long),  # step of the last finished save, 0 for none
        ("saves", ctypes.c_int),  # number of saves that began
        ("seconds", ctypes.c_double),  # duration of the last save
    )


class Child:
    """A running command."""

    def __init__(self, line: str, folder: Path, slow: float = 0.0):
        """Start it.

        Args:
            line: such as `src/train.py --dataset text.npz`.
            folder: current folder of the command.
            slow: delay of each operation that changes the disk (seconds).
        """
        self.seen = Seen.from_buffer(mmap.mmap(-1, ctypes.sizeof(Seen)))
        self.began = time.monotonic()
        self.output = folder / "output.txt"
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _become(line, folder, self.output, self.seen, slow)

    def ended(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        return None if process == 0 else os.waitstatus_to_exitcode(status)

    def kill_after(self, seconds: float, condition: Callable[[], object] = lambda: True) -> bool:
        """Kill it some time after a condition holds; return False if it ended before that."""
        waiting.wait_until(lambda: condition() or self._gone(), self.process, self.output.read_text)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._gone():
            time.sleep(min(0.002, max(end - time.monotonic(), 0)))
        os.kill(self.process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        assert code in (0, -signal.SIGKILL), self.output.read_text(errors="replace")
        return code != 0

    def finish(self) -> float:
        """Wait until it exits with code 0, and return its duration (seconds)."""
        waiting.wait_until(self._gone, self.process, self.output.read_text)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        assert code == 0, self.output.read_text(errors="replace")
        return time.monotonic() - self.began

    def _gone(self) -> bool:
        """Return whether it has ended, without reaping it."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process, options) is not None


def _become(line: str, folder: Path, output: Path, seen: Seen, slow: float) -> None:
    """Run the command in this process; does not return."""
    code = 70
    try:
        os.chdir(folder)
        with open(output, "wb") as file, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        tf.config.run_functions_eagerly(True)  # compilation would take most of the time
        slow_open = _slow_down(seen, slow)
        _watch(seen)
        script, *sys.argv[1:] = shlex.split(line)
        sys.argv[0] = script
        runpy.run_path(str(REPOSITORY / script), {"open": slow_open}, "__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _watch(seen: Seen) -> None:
    """Record saves, steps and writes in `seen`."""
    save, train_step = RunFolder.save, Loop._train_step

    def watched_save(self: RunFolder, step: int, *arguments: Any, **named: Any) -> Path:
        seen.writing += 1
        if self.path.name == "best":
            prefix = save(self, step, *arguments, **named)
        else:
            began = time.monotonic()
            seen.saving = step
            seen.saves += 1
            prefix = save(self, step, *arguments, **named)
            seen.saved = step
            seen.seconds = time.monotonic() - began
        seen.writing -= 1
        return prefix

    def watched_step(self: Loop) -> Iterator:
        seen.first = seen.first or self._step + 1
        yield from train_step(self)
        seen.step = self._step

    RunFolder.save, Loop._train_step = watched_save, watched_step
    for name in ("atomic_write", "atomic_folder"):
        setattr(files, name, _counted(getattr(files, name), seen))


def _counted(manager: Callable, seen: Seen) -> Callable:
    @contextlib.contextmanager
    def counted(*arguments: Any, **named: Any) -> Iterator:
        seen.writing += 1
        with manager(*arguments, **named) as found:
            yield found
        seen.writing -= 1

    return counted


def _slow_down(seen: Seen, seconds: float) -> Callable:
    """Delay all operations that change the disk, and write in halves; return a slow `open`."""

    def slowly(change: Callable) -> Callable:
        def call(*arguments: Any, **named: Any) -> Any:
            if change is save_v2:  # writes in C++, too fast to be killed
                half = os.fsdecode(named["prefix"]) + ".data-00000-of-00001.tempstate12"
                Path(half).write_bytes(b"half")
            time.sleep(seconds)
            result = change(*arguments, **named)
            time.sleep(seconds)
            return result

        return call

    class SlowFile:
        """A file that writes in halves."""

        def __init__(self, file: Any):
            self._file = file

        def write(self, content: Any) -> int:
            half = len(content) // 2
            seen.writing += 1
            for part in (content[:half], content[half:]):
                self._file.write(part)
                self._file.flush()
                time.sleep(seconds)
            seen.writing -= 1
            return len(content)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> SlowFile:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    def slow_open(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        file = open(path, mode, *arguments, **named)  # noqa: SIM115
        return SlowFile(file) if seconds and set(mode) & set("wa+x") else file

    if seconds:
        save_v2 = tf.raw_ops.SaveV2
        changes = [(os, name) for name in ("replace", "fsync", "link", "ftruncate")]
        changes += [(Path, name) for name in ("unlink", "rename", "write_bytes", "write_text")]
        for place, name in [*changes, (tf.raw_ops, "SaveV2")]:
            setattr(place, name, slowly(getattr(place, name)))
        for module in (files, shards, transfer, run_log, jsonl):
            module.open = slow_open
    return slow_open
