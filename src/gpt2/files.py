"""Write, flush, rename: how every file of the project comes into being."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gpt2.errors import UserError

# Files on their way to their final name end in this; leftovers of a kill are recognised by it.
PARTIAL = ".partial"
# What a system says of a lock that somebody else has.
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
ABANDONED = 3600  # seconds after which a folder is not being filled any more, but a leftover


def partial_path(path: Path) -> Path:
    """A name beside `path` that no other process uses, for writing it under."""
    return path.parent / f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}"


def sync(path: Path) -> None:
    """Force what has been written to the file (or folder, where the system can) onto the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle on a folder to flush; its renames are journalled
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(partial: Path, final: Path) -> None:
    """Give a completely written file its final name, replacing an older one in one instant."""
    sync(partial)
    os.replace(partial, final)
    sync(final.parent)


@contextlib.contextmanager
def written(path: Path, mode: str = "wb", **open_options: Any) -> Iterator[IO]:
    """Open a file that appears under its name only when the block ends without an error.

    A kill at any instant leaves either the old file or the new one, whole.

    Raises:
        UserError: the file cannot be written (no such folder, no permission, disk full).
    """
    path = Path(path)
    partial = partial_path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "there is a folder or a device of that name")
        try:
            with open(partial, mode, **open_options) as file:
                yield file
            move_into_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that appears under its name only when the block ends without an error.

    Yields the folder to write into until then.

    Raises:
        UserError: it cannot be written, or there is something under that name.
    """
    partial = partial_path(path)
    for old in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            for file in partial.iterdir():
                sync(file)
            sync(partial)
            partial.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line ends as they are; see `written`."""
    with written(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; an existing one is fine."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left half-written in `folder`."""
    for path in folder.glob(f"*{PARTIAL}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process has it; False then.

    The system lets go of it when the file is closed or the process ends, however it ends. File
    systems without locks, as on some networks, let everybody in.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def read_text(path: Path) -> str:
    """Read a small UTF-8 text file.

    Raises:
        UserError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def whole_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that have an end; none if there is no file.

    Only a newline ends one: other characters that do so in Unicode may stand in a line of JSON.
    What a kill has left of a last line need not be whole characters.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        return content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def open_behind(path: Path, lines: list[str]) -> IO[str]:
    """Open a file to add lines to it, behind the `whole_lines` that it has.

    Half a line, which a kill has left, is cut off.

    Raises:
        UserError: it cannot be written, or another process is at it.
    """
    try:
        file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (the caller closes it)
        if not try_lock(file.fileno()) or whole_lines(path) != lines:
            file.close()
            raise UserError(
                f"Another process is writing {path}; wait for its end, or choose another file."
            )
        file.truncate(sum(len(line.encode()) + 1 for line in lines))
        return file
    except OSError as error:
        raise cannot_write(path, error) from error


def add_line(file: IO[str], line: str) -> None:
    """Write a line to the end of an open file so that it outlives this process.

    Raises:
        UserError: it cannot be written, for example because the disk is full; the file is closed.
    """
    try:
        file.write(f"{line}\n")
        file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            file.close()  # which tries again, and would hide this error if it were left for later
        raise cannot_write(Path(file.name), error) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        UserError: it is missing, unreadable or not a JSON object.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch or write it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold one JSON object, not a {type(value).__name__}.")
    return value


def cannot_write(path: Path, error: OSError) -> UserError:
    """The sentence for an operating-system error met while writing `path`."""
    return UserError(
        f"{path} cannot be written: {error.strerror or error}; "
        "check the folder, its permissions and the free disk space."
    )
