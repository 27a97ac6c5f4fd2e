"""Locks that keep two processes out of the same folder or file.

The operating system releases a lock when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2.errors import UserError, cannot_write

RUN_LOCK = "lock"  # in the folder of a run
DOWNLOAD_LOCK = "download.partial"  # in the folder of a model that is being downloaded
# What a system says of a lock that somebody else has.
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process has it; False then.

    The system lets go of it when the file is closed or the process ends, however it ends. File
    systems without locks, as on some networks, let everybody in.
    """
    return lock_state(descriptor) is not False


def lock_state(descriptor: int) -> bool | None:
    """As `try_lock`, but None where there are no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def is_current(descriptor: int, path: Path) -> bool:
    """Whether an open file lies where it was opened; its last owner may just have deleted it."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, making the folder if need be.

    The system lets go of it when the process ends, however it ends. A folder that was made here
    and has stayed empty is taken away again.

    Raises:
        UserError: another process holds it, or the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / RUN_LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if not try_lock(descriptor):
            raise UserError(
                f"Another training is at work in {folder}; wait for its end, stop it, or give "
                "this one another --run_name."
            )
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if made and [entry.name for entry in folder.iterdir()] == [RUN_LOCK]:
                path.unlink()
                for empty in made:
                    empty.rmdir()


@contextlib.contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Have the folder alone within the block; the system ends this with the process, however.

    Raises:
        UserError: another process has it.
    """
    path = folder / DOWNLOAD_LOCK
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
        if is_current(descriptor, path):
            return descriptor
        os.close(descriptor)  # of a file that its last owner has just deleted
