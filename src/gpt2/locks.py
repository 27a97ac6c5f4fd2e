"""File locks that keep two processes out of the same folder or file.

The operating system releases a lock when the process ends, even by SIGKILL.
"""

# Not the package filelock: it raises an error on file systems without locks (its fallback leaves
# stale locks after a kill), and does not check whether the locked file was deleted meanwhile.

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2.errors import UserError, cannot_write

RUN_LOCK = "lock"  # in the folder of a run
DOWNLOAD_LOCK = "download.partial"  # in a model folder during a download
# Errors of a lock that another process holds.
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


def try_lock(descriptor: int) -> bool:
    """Lock an open file and return True, or False if another process holds the lock.

    The lock ends when the file is closed or the process ends. On a file system without locks, as on
    some networks, everybody gets True.
    """
    return lock_state(descriptor) is not False


def lock_state(descriptor: int) -> bool | None:
    """Return what `try_lock` does, but None on a file system without locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def is_current(descriptor: int, path: Path) -> bool:
    """Return whether `path` still is this open file, which its last owner may have deleted."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder within the block, making the folder if necessary.

    A folder that was made here and has stayed empty is removed again.

    Raises:
        UserError: another process holds the lock, or the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / RUN_LOCK
    descriptor = None
    try:  # from here on a signal may end the block
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(folder, error) from error
        if not try_lock(descriptor):
            raise UserError(
                f"Another training is running in {folder}. Wait until it ends, stop it, or choose "
                "another run name."
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            if made and [entry.name for entry in folder.iterdir()] == [RUN_LOCK]:
                path.unlink()
        for empty in made:
            with contextlib.suppress(OSError):  # it is not empty, or was not made
                empty.rmdir()


@contextlib.contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a model folder within the block; its lock file is deleted afterwards.

    Raises:
        UserError: another process holds the lock.
    """
    path = folder / DOWNLOAD_LOCK
    descriptor = None
    try:
        descriptor = _open_locked(path, folder)
        yield
    finally:
        if descriptor is None:
            _remove_if_free(path)
        else:
            _remove_own(path, descriptor)


def _remove_own(path: Path, descriptor: int) -> None:
    """Delete a lock file and release its lock."""
    if os.name != "nt":  # there, an open file cannot be deleted
        path.unlink(missing_ok=True)
    os.close(descriptor)
    if os.name == "nt":
        with contextlib.suppress(OSError):  # the next process has opened it
            path.unlink()


def _remove_if_free(path: Path) -> None:
    """Delete a lock file that nobody holds, which a signal has left before it was locked."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        if try_lock(descriptor) and is_current(descriptor, path):
            _remove_own(path, descriptor)
        else:
            os.close(descriptor)


def _open_locked(path: Path, folder: Path) -> int:
    """Open and lock a file, making it if necessary."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            if not try_lock(descriptor):
                raise UserError(
                    f"{folder}: another download into this folder is running. Wait until it ends."
                )
            if is_current(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner has just deleted this file
