"""Files of JSON lines that grow record by record and survive a kill at any moment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

from gpt2 import locks
from gpt2.errors import UserError, cannot_write


def complete_lines(path: Path) -> list[str]:
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


def open_append(path: Path, lines: list[str]) -> IO[str]:
    """Open a file to add lines to it, behind the `complete_lines` that it has.

    Half a line, which a kill has left, is cut off.

    Raises:
        UserError: it cannot be written, or another process is at it.
    """
    try:
        file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (the caller closes it)
        if not locks.try_lock(file.fileno()) or complete_lines(path) != lines:
            file.close()
            raise UserError(
                f"Another process is writing {path}; wait for its end, or choose another file."
            )
        file.truncate(sum(len(line.encode()) + 1 for line in lines))
        return file
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(file: IO[str], line: str) -> None:
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
