"""Keeps two processes from filling the same folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2.errors import UserError
from gpt2.files import PARTIAL, cannot_write, is_still, try_lock

LOCK_FILE = "download" + PARTIAL


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have the folder alone within the block; the system ends this with the process, however.

    Raises:
        UserError: another process has it.
    """
    path = folder / LOCK_FILE
    descriptor = _open_locked(path, folder)
    try:
        yield
    finally:
        if os.name != "nt":  # there, an open file cannot be deleted
            path.unlink(missing_ok=True)
        os.close(descriptor)
        if os.name == "nt":
            with contextlib.suppress(OSError):  # the next process has opened it
                path.unlink()


def _open_locked(path: Path, folder: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise cannot_write(path, error) from error
        if not try_lock(descriptor):
            os.close(descriptor)
            raise UserError(
                f"{folder} is being filled by another download; wait until that one has ended."
            )
        if is_still(descriptor, path):
            return descriptor
        os.close(descriptor)  # of a file that its last owner has just deleted
