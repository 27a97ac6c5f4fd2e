"""The objective of a trial: the lowest validation loss of a run of `train`.

A trial is a process of its own, running `train`, and not a training in this process:

- It is an ordinary run, with train's own checks, exact resume and clean stop, and nothing is
  written a second time here.
- A trial that runs out of memory or is killed ends alone. TensorFlow does not return memory to the
  system, so that trials of different batch sizes would add up in one process.
- The study does not import TensorFlow, and can react to Ctrl+C while a trial starts or computes.

The price is the start of TensorFlow, a few seconds for each trial. The losses are read from the
run's history.jsonl as it grows. A run ends as with Ctrl+C: after its step, saved.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gpt2 import locks
from gpt2.checks import is_count, is_finite
from gpt2.errors import UserError, cannot_write, in_short
from gpt2.training.loggers import EVENTS
from gpt2.training.run_log import CONFIG, HISTORY, read_curves

TRIAL_LOCK = "trial.lock"  # in the folder of a run, which marks it as the trial of a study
STARTED = "Training..."  # the line of train after which settings, and not the input, are to blame
SOURCES = Path(__file__).resolve().parents[2]  # the folder that the package is in
POLL = 0.2  # seconds between two looks at the stop condition


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        finished: whether it came to its own end.
        started: whether it came to its first step.
        error: the sentence that it ended with, if it failed.
    """

    finished: bool
    started: bool
    error: str


class TrialRun:
    """The run of one trial: a folder under `checkpoint/` that one process at a time trains in."""

    def __init__(self, folder: Path):
        """Represent the run, which need not exist."""
        self.folder = folder

    @contextlib.contextmanager
    def claimed(self) -> Iterator[int | None]:
        """Hold the lock of the trial within the block; yields None if another process has it.

        The training process inherits the lock (yielded as a file descriptor). It keeps the lock
        until its last save if the study's process is killed.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.folder / TRIAL_LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield descriptor if locks.try_lock(descriptor) else None
        finally:
            os.close(descriptor)

    @property
    def is_foreign(self) -> bool:
        """Whether the folder exists and is not that of a trial."""
        return self.folder.exists() and not (self.folder / TRIAL_LOCK).exists()

    def lowest_loss(self) -> float:
        """Return the lowest validation loss after the first step (nats); NaN without one."""
        try:
            curves = read_curves(self.folder / HISTORY)
        except UserError:
            return math.nan
        losses = curves.val_loss[(curves.val_steps > 0) & np.isfinite(curves.val_loss)]
        return float(losses.min()) if len(losses) else math.nan

    def delete_checkpoints(self) -> None:
        """Delete weights and resume state; settings, history and TensorBoard files are kept.

        Raises:
            UserError: a file cannot be deleted.
        """
        kept = {CONFIG, HISTORY, TRIAL_LOCK, locks.RUN_LOCK}
        try:
            for path in sorted(self.folder.iterdir()):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in kept and not path.name.startswith(EVENTS):
                    path.unlink()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def train(
        self,
        words: Sequence[str],
        lock: int,
        on_loss: Callable[[int, float], object],
        stop: Callable[[], bool],
    ) -> Outcome:
        """Run `train` until it ends, or until `stop` asks for its end.

        Args:
            words: flags of train.
            lock: of `claimed`.
            on_loss: called with the step and validation loss of each validation, also those of
                earlier calls.
            stop: called several times a second; True ends the run after its step, saved.
        """
        with tempfile.TemporaryFile() as errors:
            process = _start(words, lock, errors)
            follower = _Follower(self.folder / HISTORY)
            started = stopped = False
            try:
                for line in _lines(process):
                    started = started or line.startswith(STARTED)
                    for step, loss in follower.new_losses():
                        on_loss(step, loss)
                    if not stopped and stop():
                        stopped = True
                        _ask_to_stop(process)
            except BaseException:
                _ask_to_stop(process)
                process.wait()
                raise
            code = process.wait()
            errors.seek(0)
            return Outcome(code == 0 and not stopped, started, _last_sentence(errors, code))


def verb_command(verb: str, words: Sequence[str]) -> list[str]:
    """Return the command line of a verb of this installation, for a process of its own."""
    return [sys.executable, "-m", "gpt2", verb, *words]


def verb_environment() -> dict[str, str]:
    """Return the environment in which a process finds this installation."""
    path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _start(words: Sequence[str], lock: int, errors: IO[bytes]) -> subprocess.Popen:
    """Start `train` in a process group of its own, so that Ctrl+C reaches the study only."""
    own_group: dict[str, Any] = {"start_new_session": True, "pass_fds": (lock,)}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        verb_command("train", words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=verb_environment(),
        **own_group,
    )


def _ask_to_stop(process: subprocess.Popen) -> None:
    with contextlib.suppress(OSError):  # it has just ended
        if sys.platform == "win32":
            process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            process.send_signal(signal.SIGINT)


def _lines(process: subprocess.Popen) -> Iterator[str]:
    """Yield the lines of a process, and an empty one every `POLL` seconds without any."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=POLL)
        except queue.Empty:
            yield ""
            continue
        yield (line or b"").decode(errors="replace")
        if line is None:
            return


class _Follower:
    """Reads the validation losses of a history as it grows."""

    def __init__(self, path: Path):
        self._path = path
        self._read = 0  # bytes
        self._seen: set[int] = set()  # steps

    def new_losses(self) -> Iterator[tuple[int, float]]:
        """Yield step and loss of each validation that has been added."""
        try:
            with open(self._path, "rb") as file:
                if self._path.stat().st_size < self._read:
                    self._read = 0  # a run that resumes has removed lines
                file.seek(self._read)
                added = file.read()
        except OSError:
            return  # not written yet
        added = added[: added.rfind(b"\n") + 1]
        self._read += len(added)
        for line in added.splitlines():
            step, loss = _validation(line)
            if step > 0 and step not in self._seen:
                self._seen.add(step)
                yield step, loss


def _validation(line: bytes) -> tuple[int, float]:
    """Return step and loss of a line of the history; step 0 for a line of another kind."""
    try:
        entry = json.loads(line) if b'"val_loss"' in line else {}
        step, loss = entry["step"], entry["val_loss"]
    except (ValueError, KeyError, TypeError):
        return 0, math.nan
    return (int(step), float(loss)) if is_count(step) and is_finite(loss) else (0, math.nan)


def _last_sentence(errors: IO[bytes], code: int) -> str:
    """Return the last line on standard error of a process that failed."""
    if code == 0:
        return ""
    if code < 0:
        return f"The training was killed by signal {-code}, maybe as memory ran out."
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines()]
    last = next(filter(None, reversed(lines)), f"The training ended with code {code}.")
    return in_short(last, 500)
