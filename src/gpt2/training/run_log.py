"""What a run records of itself, in two files of its folder.

`config.json` holds the settings of each call, so that the run can be repeated. `history.jsonl` has
one line for each step and each validation, for plots:

    {"step": 20, "loss": 3.91, "average": 4.02, "learning_rate": 2e-05, ...}
    {"step": 20, "val_loss": 4.11, "val_perplexity": 60.9}

The history is linear: when a run resumes from an earlier step, the lines after that step are cut.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, cannot_write

CONFIG = "config.json"
PACKAGES = ("tensorflow", "numpy")
_CALLS = "calls"


def add_call(folder: Path, **facts: Any) -> None:
    """Add a call to the `config.json` of a run, after those before it.

    Args:
        facts: what the call was told and found; the time and the versions are added.

    Raises:
        UserError: it cannot be written.
    """
    calls = _calls(folder)
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    calls.append({"time": time, **facts, "versions": versions()})
    files.write_text(folder / CONFIG, json.dumps({_CALLS: calls}, indent=2, default=str) + "\n")


def last_data(folder: Path) -> dict[str, Any]:
    """What the last call of a run recorded of its data, by their names; empty if there is none."""
    calls = _calls(folder)
    data = calls[-1].get("data") if calls and isinstance(calls[-1], dict) else None
    return data if isinstance(data, dict) else {}


def _calls(folder: Path) -> list[Any]:
    path = folder / CONFIG
    try:
        calls = files.read_json_object(path).get(_CALLS) if path.is_file() else []
    except UserError:
        calls = []  # not ours any more, and not worth stopping a training for
    return calls if isinstance(calls, list) else []


def read_calls(folder: Path) -> list[dict[str, Any]]:
    """What `add_call` has written down of each call of a run, the first one first.

    Raises:
        UserError: the run has no `config.json`, or it is none.
    """
    path = folder / CONFIG
    calls = files.read_json_object(path).get(_CALLS)
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise UserError(f"{path} names no calls of src/train.py; restore the file.")
    return calls


def versions() -> dict[str, str]:
    """Those of Python, of the packages that compute, and of the system."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # goes by another name, as for some GPUs
            found[name] = "unknown"
    return found


def data_in_short(paths: Iterable[Path], known: object = None) -> dict[str, Any]:
    """By what a dataset is known again: number, bytes and a sha256 of its files in their order.

    Args:
        known: what this gave before. If it is of as many files and bytes, of which none has been
            changed since, its sha256 is taken and the files are not read.

    Raises:
        UserError: one cannot be read.
    """
    paths, digest = list(paths), hashlib.sha256()
    size = changed = 0
    try:
        for path in paths:
            size += path.stat().st_size
            changed = max(changed, path.stat().st_mtime_ns)
        facts = {"files": len(paths), "bytes": size, "changed": changed}  # nanoseconds since 1970
        if isinstance(known, dict) and facts.items() <= known.items() and "sha256" in known:
            return known
        for path in paths:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return facts | {"sha256": digest.hexdigest()}


HISTORY = "history.jsonl"
# What reading a line raises that is no line of a history.
_NOT_OURS = (ValueError, TypeError, KeyError, OverflowError, RecursionError)


class HistoryLogger:
    """Appends to the history of a run."""

    def __init__(self, path: Path, done: int = 0, validated: int | None = None):
        """Nothing is written or cut before the first numbers.

        Args:
            path: the file.
            done: the step that the run goes on from.
            validated: the step of the last validation that counts; None if it is unknown.
        """
        self._path = path
        self._done = done
        self._validated = done - 1 if validated is None else validated
        self._file: IO[bytes] | None = None
        self._end = 0  # bytes of the file that hold whole lines
        self._pending = b""  # lines that could not be written yet

    def log_metrics(self, step: int, **values: float) -> None:
        """See `loggers.Logger`; what cannot be written now is written with the next numbers."""
        line = json.dumps({"step": step} | {n: _finite(v) for n, v in values.items()})
        self._pending += line.encode() + b"\n"
        try:
            if self._file is None:
                self._cut()
                self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
                self._end = self._file.seek(0, 2)
            self._file.seek(self._end)
            self._file.truncate()
            written = self._file.write(self._pending)
            if written < len(self._pending):
                raise OSError("the disk is full")
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._end += written
        self._pending = b""

    def log_samples(self, step: int, text: str) -> None:
        """See `loggers.Logger`; they have files of their own."""

    def close(self) -> None:
        """See `loggers.Logger`."""
        if self._file:
            self._file.close()

    def _cut(self) -> None:
        """Keep the lines up to the step that the run goes on from."""
        kept = [line for line in _lines(self._path) if self._counts(line)]
        files.write_text(self._path, "".join(line + "\n" for line in kept))

    def _counts(self, line: str) -> bool:
        try:
            entry = json.loads(line)
            last = self._validated if "val_loss" in entry else self._done
            return entry["step"] <= last
        except _NOT_OURS:  # torn by a kill, too
            return False


@dataclasses.dataclass(frozen=True)
class Curves:
    """The losses of a run in nats, float64; NaN where there is none."""

    steps: np.ndarray  # [steps]
    loss: np.ndarray  # [steps]
    average: np.ndarray  # [steps], of the losses so far
    val_steps: np.ndarray  # [validations]
    val_loss: np.ndarray  # [validations]


def read_curves(path: Path) -> Curves:
    """The losses in a history; lines that a kill has torn are left out.

    Raises:
        UserError: it is missing, or holds no loss.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing, which src/train.py writes; name a run that it has trained."
        )
    training, validation = [], []
    for line in _lines(path):
        try:
            entry = json.loads(line)
            if "val_loss" in entry:
                validation.append([float(entry["step"]), _number(entry["val_loss"])])
            else:
                losses = _number(entry["loss"]), _number(entry.get("average"))
                training.append([float(entry["step"]), *losses])
        except _NOT_OURS:
            continue
    if not training and not validation:
        raise UserError(f"{path} holds no loss of any step; train the run first.")
    steps, loss, average = np.array(training).reshape(-1, 3).T
    val_steps, val_loss = np.array(validation).reshape(-1, 2).T
    return Curves(steps, loss, average, val_steps, val_loss)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        return path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
