"""The records of a run, two files in its folder.

`config.json` holds the settings of each call of the training command, so that the run can be
repeated. `history.jsonl` has one line for each step and each validation, for plots:

    {"step": 20, "loss": 3.91, "average": 4.02, "learning_rate": 2e-05, ...}
    {"step": 20, "val_loss": 4.11, "val_perplexity": 60.9}

The history is linear: when a run resumes from an earlier step, the lines after that step are
removed. If the user has chosen that step, `history-N.jsonl` keeps the history until then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt2 import files
from gpt2.checkpoint.run import EARLIER
from gpt2.checks import is_count, is_finite
from gpt2.errors import UserError, cannot_write

CONFIG = "config.json"
DAMAGED = "config-damaged{}.json"  # with nothing in place of {}, then -2, -3 ...
HISTORY = "history.jsonl"
PACKAGES = ("tensorflow", "numpy")
_CALLS = "calls"
_SAMPLES = re.compile(r"samples-(\d{1,18})")

# --- config.json ---


def add_call(folder: Path, **facts: Any) -> Path | None:
    """Append a call of the training command to the `config.json` of a run.

    Args:
        facts: flags and other settings of the call; the time and `versions` are added.

    Returns:
        Where a file was moved to that is not the record of a run's calls; None if there was none.

    Raises:
        UserError: the file cannot be written.
    """
    path, moved = folder / CONFIG, None
    try:
        calls = read_calls(folder) if path.is_file() else []
    except UserError:
        calls, moved = [], _unused(folder)
        try:
            os.replace(path, moved)
        except OSError as error:
            raise cannot_write(path, error) from error
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    calls.append({"time": time, **facts, "versions": versions()})
    files.write_text(path, json.dumps({_CALLS: calls}, indent=2, default=str) + "\n")
    return moved


def _unused(folder: Path) -> Path:
    """Return the first path for a damaged `config.json` that is not in use."""
    tags = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (folder / DAMAGED.format(tag) for tag in tags)
    return next(path for path in paths if not os.path.lexists(path))


def call_before(folder: Path, done: int) -> dict[str, Any]:
    """Return the record of the last call that trained some of the first steps of a run, or {}."""
    for call in reversed(_calls_or_empty(folder)):
        if is_count(before := call.get("steps_before")) and before < done:
            return call
    return {}


def base_model(folder: Path) -> str | None:
    """Return the `--model_name` of the first call of a run, None if it is not recorded."""
    calls = _calls_or_empty(folder)
    flags = calls[0].get("flags") if calls else None
    name = flags.get("model_name") if isinstance(flags, dict) else None
    return name if isinstance(name, str) else None


def last_data(folder: Path) -> dict[str, Any]:
    """Return the datasets that the last call of a run recorded, by their paths, or {}."""
    calls = _calls_or_empty(folder)
    data = calls[-1].get("data") if calls else None
    return data if isinstance(data, dict) else {}


def examples_seen(folder: Path, done: int, size: int) -> int:
    """Return how many examples the first steps of a run have seen, by the recorded batch sizes.

    Args:
        done: number of steps.
        size: examples per step where nothing is recorded.
    """
    seen, end = 0, done
    for call in reversed(_calls_or_empty(folder)):
        flags, before = call.get("flags"), call.get("steps_before")
        if not isinstance(flags, dict) or not is_count(before) or not 0 <= before < end:
            continue
        sizes = [flags.get(name, 1) for name in ("batch_size", "accumulate_gradients")]
        if all(map(is_count, sizes)):
            seen += (end - before) * math.prod(sizes)
            end = before
    return seen + end * size


def last_packing(folder: Path) -> bool:
    """Return whether the last call of a run packed its examples; False if it does not say."""
    calls = _calls_or_empty(folder)
    return bool(calls) and calls[-1].get("packing") is True


def read_calls(folder: Path) -> list[dict[str, Any]]:
    """Return the recorded calls of a run, the oldest first.

    Raises:
        UserError: `config.json` is missing or is not a run's.
    """
    path = folder / CONFIG
    calls = files.read_json_object(path).get(_CALLS)
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise UserError(
            f"{path}: not the configuration of a training run ({_CALLS!r} is not a list of "
            "objects). Restore the file."
        )
    return calls


def _calls_or_empty(folder: Path) -> list[dict[str, Any]]:
    """Return `read_calls`, or [] for a file that cannot be used: it must not stop a training."""
    try:
        return read_calls(folder) if (folder / CONFIG).is_file() else []
    except UserError:
        return []


def versions() -> dict[str, str]:
    """Return the versions of Python, the operating system, TensorFlow and NumPy."""
    packages = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "system": platform.platform(), **packages}


def _version(module: str) -> str:
    """Return the version of a module, whatever its package is named (such as tensorflow-cpu)."""
    if version := getattr(sys.modules.get(module), "__version__", None):
        return str(version)
    for package in _packages(module):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "unknown"


def _packages(module: str) -> Iterator[str]:
    """Yield the packages that may hold a module; most are named as it is, and others are slow."""
    yield module
    yield from importlib.metadata.packages_distributions().get(module, ())


def data_in_short(paths: Iterable[Path], known: object = None) -> dict[str, Any]:
    """Return the fingerprint of a dataset: number, bytes and sha256 of its files in their order.

    Args:
        paths: the files.
        known: an earlier result. If number, size and modification time are the same, its sha256 is
            reused and the files are not read.

    Raises:
        UserError: a file cannot be read.
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


# --- history.jsonl ---


class HistoryLogger:
    """Appends metrics to the history of a run; see `loggers.Logger`."""

    def __init__(self, path: Path, done: int = 0, validated: int | None = None):
        """Prepare; the file is changed only by the first `log_metrics`.

        Args:
            path: the file.
            done: the step that the run resumes from; later lines are removed.
            validated: step of the last validation before; None if unknown.
        """
        self._path = path
        self._done = done
        self._validated = done - 1 if validated is None else validated
        self._file: IO[bytes] | None = None
        self._end = 0  # length of the complete lines in the file, in bytes
        self._pending = b""  # lines not yet written

    def log_metrics(self, step: int, **values: float) -> None:
        """Append a line; if that fails, it is written with the next one."""
        line = json.dumps({"step": step} | {n: _finite(v) for n, v in values.items()})
        self._pending += line.encode() + b"\n"
        try:
            if self._file is None:
                self._remove_later_lines()
                self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
                self._end = self._file.seek(0, 2)
            self._file.seek(self._end)
            self._file.truncate()
            written = self._file.write(self._pending)
            if written < len(self._pending):
                raise OSError("the disk is full")  # a short write raises nothing by itself
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._end += written
        self._pending = b""

    def log_samples(self, step: int, text: str) -> None:
        """Do nothing: samples are written to their own files."""

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _remove_later_lines(self) -> None:
        """Remove torn lines and those after the step that the run resumes from."""
        kept = [line for line in _lines(self._path) if self._is_kept(line)]
        files.write_text(self._path, "".join(line + "\n" for line in kept))

    def _is_kept(self, line: str) -> bool:
        entry = _entry(line)
        last = self._validated if "val_loss" in entry else self._done
        return bool(entry) and entry["step"] <= last


def keep_history(folder: Path, done: int) -> Path | None:
    """Copy the history of a run to `history-N.jsonl` if it goes on after a step.

    Args:
        done: the step that another training starts from; 0 means the beginning.

    Returns:
        The copy, or None if nothing would be lost without it.

    Raises:
        UserError: it cannot be written.
    """
    lines = _lines(folder / HISTORY)
    if not any(_entry(line).get("step", -1) > done or not done for line in lines if line):
        return None
    path = files.unused(folder / HISTORY.replace(".", "-{}."))
    files.write_text(path, "\n".join(lines))
    return path


def keep_samples(folder: Path, done: int) -> Path | None:
    """Move the samples of a run after a step to `earlier-N/`, as another training starts there.

    Args:
        folder: the run's samples.
        done: the step that training starts from; 0 means the beginning.

    Returns:
        The new folder, or None if nothing would be overwritten.

    Raises:
        UserError: it cannot be written.
    """
    names = ((path, _SAMPLES.fullmatch(path.name)) for path in folder.glob("samples-*"))
    moved = [path for path, named in names if named and int(named[1]) > done]
    if not moved:
        return None
    earlier = files.unused(folder / EARLIER)
    files.make_folder(earlier)
    try:
        for path in moved:
            path.rename(earlier / path.name)
    except OSError as error:
        raise cannot_write(earlier, error) from error
    return earlier


@dataclasses.dataclass(frozen=True)
class Curves:
    """The losses of a run in nats, float64; NaN where unknown."""

    steps: np.ndarray  # [steps]
    loss: np.ndarray  # [steps]
    average: np.ndarray  # [steps], moving average
    val_steps: np.ndarray  # [validations]
    val_loss: np.ndarray  # [validations]


def read_curves(path: Path) -> Curves:
    """Return the losses of a history.

    Lines without a step are skipped, such as torn ones. A loss that is not a number that float32
    can hold, or is negative, is unknown.

    Raises:
        UserError: the file is missing or has no losses.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing. Training writes it: give a run that was trained with this toolkit."
        )
    training, validation = [], []
    for line in _lines(path):
        entry = _entry(line)
        if "val_loss" in entry:
            validation.append([entry["step"], _loss(entry["val_loss"])])
        elif "loss" in entry:
            losses = _loss(entry["loss"]), _loss(entry.get("average"))
            training.append([entry["step"], *losses])
    if not training and not validation:
        raise UserError(f"{path} contains no losses. Train the run first.")
    steps, loss, average = np.array(training).reshape(-1, 3).T
    val_steps, val_loss = np.array(validation).reshape(-1, 2).T
    return Curves(steps, loss, average, val_steps, val_loss)


def _entry(line: str) -> dict[str, Any]:
    """Return a line of a history whose step is a whole number, or {} for any other line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) and is_count(entry.get("step")) else {}


def _loss(value: object) -> float:
    return float(value) if is_finite(value) and value >= 0 else math.nan  # type: ignore


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        return path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has neither NaN nor infinity
