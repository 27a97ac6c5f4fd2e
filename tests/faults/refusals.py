"""Makes each system call of a save fail, one after the other.

`strace` injects real errors: the k-th system call of a given name fails in the process that saves.
This needs Linux and strace.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import mmap
import os
import shutil
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.errors import UserError
from tests.checkpoint.checkpoint_helpers import TINY, latest, random_tensors
from tests.support import waiting

CALLS = ("openat", "write,pwrite64,writev", "fsync,fdatasync", "rename,renameat,renameat2", "link")
ERRORS = (errno.ENOSPC, errno.EIO)
OLD, NEW = 2, 77  # seeds of the current tensors, and of those that are being saved
SAVED, REFUSED, BUG = 1, 2, 3


@dataclasses.dataclass
class Refusals:
    """Results of all saves."""

    calls: int = 0  # that failed, one per save
    refused: int = 0  # saves that reported an error; the others worked around the call
    old: int = 0  # saves after which the previous checkpoint was current and complete
    new: int = 0  # saves after which the new checkpoint was


def saves(step: int) -> Refusals:
    """Save a step in a run that has steps 1 and 2; each time, another call fails."""
    found = Refusals()
    with tempfile.TemporaryDirectory() as place, Saver(Path(place), step) as saver:
        for error in ERRORS:
            for calls in CALLS:
                for which in range(1, 1000):
                    if not _refuse_one(saver, calls, error, which, found):
                        break
    return found


def _refuse_one(saver: Saver, calls: str, error: int, which: int, found: Refusals) -> bool:
    """Save while one call fails; return False if there are fewer calls."""
    outcome, injected = saver.save(f"{calls}:error={errno.errorcode[error]}:when={which}")
    what = f"{calls} number {which}, {errno.errorcode[error]}"
    assert outcome in (SAVED, REFUSED), (what, saver.report.read_text())
    now = current_seed(saver.run)
    if injected:
        found.calls += 1
        found.refused += outcome == REFUSED
        found.old += now == OLD
        found.new += now == NEW
    assert now == NEW or outcome == REFUSED, what
    assert not list(saver.run.path.glob(f"*{files.PARTIAL}*")), what
    # Without the error, the same save succeeds.
    assert saver.save(again=True)[0] == SAVED, what
    assert current_seed(saver.run) == NEW, what
    listed = {f"model-{step}" for step in (1, 2, 3)} | {"checkpoint", "counter"}
    strays = {path.name.partition(".")[0] for path in saver.run.path.iterdir()} - listed
    assert all(name.startswith("state-") for name in strays), (what, strays)
    return injected


def current_seed(run: RunFolder) -> int:
    """Return the seed of the current checkpoint; check that it and its state are complete."""
    prefix, _ = latest(run)
    tensors = dict(bundle.Tensors(prefix, TINY))
    prefix_of_state = run.state_of(prefix)
    seed = state.read_facts(prefix_of_state, prefix)["seed"]
    assert state.read_tensors(prefix_of_state)["adam/steps"] == seed
    for name, tensor in random_tensors(TINY, seed).items():
        np.testing.assert_array_equal(tensors[name], tensor)
    return seed


class _Shared(ctypes.Structure):
    _fields_ = (("done", ctypes.c_long), ("outcome", ctypes.c_long))


class Saver:
    """A process that saves on request, optionally while strace makes a call fail."""

    def __init__(self, place: Path, step: int):
        self._place, self._step = place, step
        self._shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))
        self.run = RunFolder(place / "run", keep=2)
        self.report = place / "report"

    def __enter__(self) -> Saver:
        requests, self._requests = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            self._serve(requests)
        os.close(requests)
        self._wait_until(lambda: self._shared.done)
        assert self._shared.outcome == SAVED
        self._original = self._place / "original"
        shutil.copytree(self.run.path, self._original)
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._requests)

    def save(self, injection: str | None = None, again: bool = False) -> tuple[int, bool]:
        """Save, in a new copy of the run or in the same one again.

        Returns:
            The outcome, and whether a call failed.
        """
        if not again:
            shutil.rmtree(self.run.path)
            shutil.copytree(self._original, self.run.path)
        done, log = self._shared.done, self._place / "strace.txt"
        if injection:
            words = ["strace", "-f", "-qq", "-o", str(log), "-p", str(self._process)]
            words += ["-e", f"inject={injection}", "-e", f"trace={injection.partition(':')[0]}"]
            tracer = subprocess.Popen(words)
            self._wait_until(self._is_traced)
        os.write(self._requests, b"x")
        self._wait_until(lambda: self._shared.done > done)
        if not injection:
            return self._shared.outcome, False
        tracer.send_signal(signal.SIGINT)
        waiting.wait_for(tracer)
        return self._shared.outcome, "(INJECTED)" in log.read_text(errors="replace")

    def _wait_until(self, condition: Callable[[], object]) -> None:
        waiting.wait_until(condition, self._process, self.report.read_text)

    def _is_traced(self) -> bool:
        status = Path(f"/proc/{self._process}/task").glob("*/status")
        return all("TracerPid:\t0\n" not in path.read_text() for path in status)

    def _serve(self, requests: int) -> None:
        try:
            for step in (1, OLD):
                self._save(step, step)
            self._shared.outcome, self._shared.done = SAVED, 1
            while os.read(requests, 1):
                try:
                    self._save(self._step, NEW)
                    outcome = SAVED
                except UserError as error:
                    outcome = REFUSED if "cannot be" in str(error) else BUG
                    said = str(error)
                except BaseException:
                    outcome, said = BUG, traceback.format_exc()
                if outcome == BUG:
                    self.report.write_text(said)
                self._shared.outcome = outcome
                self._shared.done += 1
        finally:
            os._exit(1)

    def _save(self, step: int, seed: int) -> None:
        tensors = random_tensors(TINY, seed)
        resume_state = ResumeState({"seed": seed}, {"adam/steps": np.array(seed, np.int64)})
        self.run.save(step, tensors, TINY, resume_state)
