"""`history.jsonl`: one line for each step and each validation of a run, for plots.

    {"step": 20, "loss": 3.91, "average": 4.02, "learning_rate": 2e-05, ...}
    {"step": 20, "val_loss": 4.11, "val_perplexity": 60.9}

The file tells one story: what a run did after the step that it now goes on from is cut away.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import IO

import numpy as np

from gpt2 import files
from gpt2.errors import UserError

HISTORY = "history.jsonl"
# What reading a line raises that is no line of a history.
_NOT_OURS = (ValueError, TypeError, KeyError, OverflowError, RecursionError)


class History:
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

    def numbers(self, step: int, **values: float) -> None:
        """See `watchers.Watcher`; what cannot be written now is written with the next numbers."""
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
            raise files.cannot_write(self._path, error) from error
        self._end += written
        self._pending = b""

    def samples(self, step: int, text: str) -> None:
        """See `watchers.Watcher`; they have files of their own."""

    def close(self) -> None:
        """See `watchers.Watcher`."""
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
        raise files.cannot_write(path, error) from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
