"""`config.json`: with what each call of a run was made, so that the run can be repeated."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import UserError

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
