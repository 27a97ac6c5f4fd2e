"""Files of JSON lines that grow record by record and survive a kill at any moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from gpt2 import locks
from gpt2.errors import UserError, cannot_write, in_short, quoted

Item = TypeVar("Item")


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


class RecordFile(Generic[Item]):
    """A file of JSON objects, one per line, that a later call with the same settings resumes.

    Creating it reads the records that are there; a `with` block opens it for `append`.

    Attributes:
        records: what `read` returned for each record that was there.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        read: Callable[[dict[str, Any]], Item],
        key: str = "settings",
    ):
        """Read the records that are there.

        Args:
            settings: stored in every record; those of all records must be equal to them.
            read: takes what is needed from a record; KeyError, TypeError, ValueError or
                OverflowError mean that it is not a valid one.
            key: the field of a record that holds the settings.

        Raises:
            UserError: a line is not a record, or a record has other settings.
        """
        self._path, self._key = path, key
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they are read back
        self._lines = complete_lines(path)
        self.records = [self._parse(line, at, read) for at, line in enumerate(self._lines, start=1)]

    def _parse(self, line: str, at: int, read: Callable[[dict[str, Any]], Item]) -> Item:
        try:
            record = json.loads(line)
            settings = dict(record[self._key])
            item = read(record)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{self._path} line {at}: not a sample of this command. Choose another output."
            ) from error
        for name in self._settings | settings:
            theirs, ours = settings.get(name), self._settings.get(name)
            if theirs != ours:
                raise UserError(
                    f"{self._path} line {at}: generated with {in_short(name)} {quoted(theirs)}, "
                    f"not {quoted(ours)}. Repeat the first to resume, or choose another output."
                )
        return item

    def __enter__(self) -> RecordFile[Item]:
        self._file = open_append(self._path, self._lines)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record and the settings to the end of the file, so that a kill cannot lose it.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        line = json.dumps({**record, self._key: self._settings}, ensure_ascii=False)
        append_line(self._file, line)
        self._lines.append(line)
