"""One training at a time in the folder of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2 import files
from gpt2.errors import UserError

LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, making the folder if need be.

    The system lets go of it when the process ends, however it ends. A folder that was made here
    and has stayed empty is taken away again.

    Raises:
        UserError: another process holds it, or the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    files.make_folder(folder)
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise files.cannot_write(path, error) from error
    try:
        if not files.try_lock(descriptor):
            raise UserError(
                f"Another training is at work in {folder}; wait for its end, stop it, or give "
                "this one another --run_name."
            )
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if made and [entry.name for entry in folder.iterdir()] == [LOCK]:
                path.unlink()
                for empty in made:
                    empty.rmdir()
