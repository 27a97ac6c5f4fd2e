"""`config.json`: with what each call of a run was made, so that the run can be repeated."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
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
    path = folder / CONFIG
    try:
        calls = files.read_json_object(path).get(_CALLS, []) if path.is_file() else []
    except UserError:
        calls = []  # not ours any more, and not worth stopping a training for
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    calls.append({"time": time, **facts, "versions": versions()})
    files.write_text(path, json.dumps({_CALLS: calls}, indent=2, default=str) + "\n")


def versions() -> dict[str, str]:
    """Those of Python, of the packages that compute, and of the system."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # goes by another name, as for some GPUs
            found[name] = "unknown"
    return found


def data_in_short(paths: Iterable[Path]) -> Mapping[str, Any]:
    """By what a dataset is known again: number, bytes and a sha256 of its files in their order.

    Raises:
        UserError: one cannot be read.
    """
    digest, count, size = hashlib.sha256(), 0, 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        count += 1
    return {"files": count, "bytes": size, "sha256": digest.hexdigest()}
