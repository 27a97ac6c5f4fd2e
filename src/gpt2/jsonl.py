"""Files of JSON lines that grow line by line; a kill loses at most the last line."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from gpt2 import locks
from gpt2.errors import UserError, cannot_read, cannot_write, in_short, quoted

Item = TypeVar("Item")


class Ambiguous(dict):
    """A JSON object whose text has a field more than once; it holds the last value of each.

    Attributes:
        repeated: the name of the field.
        problem: what is wrong and what to do, for messages.
    """

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        self.problem = f"field {quoted(self.repeated)} occurs more than once. Keep one of them."


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, an `Ambiguous` one if a field is repeated; an `object_pairs_hook`.

    Example:
        >>> json.loads('{"text": "a", "text": "b"}', object_pairs_hook=unique_fields).repeated
        'text'
    """
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Ambiguous(pairs)


def complete_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file that end in a newline; none if the file does not exist.

    Other line separators of Unicode may occur inside a line of JSON. The incomplete last line that
    a kill leaves is ignored, even if it ends in the middle of a character.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        return content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}). Move it away to start a new file."
        ) from error
    except OSError as error:
        raise cannot_read(path, error) from error


def open_append(path: Path, lines: list[str]) -> IO[str]:
    """Open a file to append lines, after truncating an incomplete last line.

    Args:
        lines: the `complete_lines` of the file, as the caller has read them.

    Raises:
        UserError: it cannot be written, or another process is writing to it.
    """
    try:
        file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (the caller closes it)
        if not locks.try_lock(file.fileno()) or complete_lines(path) != lines:
            file.close()
            raise UserError(
                f"Another process is writing {path}. Wait until it ends, or choose another file."
            )
        file.truncate(sum(len(line.encode()) + 1 for line in lines))
        return file
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(file: IO[str], line: str) -> None:
    """Append a line to an open file and hand it to the operating system.

    Raises:
        UserError: it cannot be written, for example because the disk is full; the file is closed.
    """
    try:
        file.write(f"{line}\n")
        file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            file.close()  # flushes again; doing so now keeps it from hiding this error
        raise cannot_write(Path(file.name), error) from error


def as_line(record: Mapping[str, Any]) -> str:
    """Return a record as a line of JSON that can be encoded as UTF-8.

    Raises:
        UserError: a number is not finite, for which JSON has no form.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        return json.dumps(record) if re.search(r"[\ud800-\udfff]", line) else line
    except ValueError as error:
        raise UserError(
            "A value of a record is not a finite number, which JSON cannot hold. Check the model."
        ) from error


class RecordFile(Generic[Item]):
    """A file of JSON objects, one per line, that a later call with the same settings resumes.

    Creating it reads the records that are there; a `with` block opens it for `append`.

    Attributes:
        records: what `read` returned for each record that was there.
        unknown: the names in `later` that some record does not have.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        read: Callable[[dict[str, Any]], Item],
        key: str = "settings",
        later: Collection[str] = (),
        overwrite: bool = False,
        advice: str = "Repeat the first to resume, or choose another output.",
    ):
        """Read the records that are there.

        Args:
            settings: stored in every record; those of all records must be equal to them.
            read: takes what is needed from a record; KeyError, TypeError, ValueError or
                OverflowError mean that it is not a valid one.
            key: the field of a record that holds the settings.
            later: names of settings that earlier versions did not record.
            overwrite: whether opening it deletes the records, which then may be any.
            advice: the end of the message about other settings.

        Raises:
            UserError: a line is not a record, or a record has other settings.
        """
        self._path, self._key = path, key
        self._later, self._overwrite, self._advice = frozenset(later), overwrite, advice
        self.unknown: set[str] = set()
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they are read back
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is a folder or a device, not a file. Choose another output.")
        self._lines = complete_lines(path)
        kept = [] if overwrite else self._lines
        if not self._lines and not overwrite:
            self._check_remainder()
        self.records = [self._parse(line, at, read) for at, line in enumerate(kept, start=1)]

    def _check_remainder(self) -> None:
        """Check that a file without a complete line has at most the start of a record.

        Raises:
            UserError: it has something else, which opening it would delete.
        """
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise cannot_read(self._path, error) from error
        if content and not (content.startswith(b'{"') and content[-1:] != b"}"):
            raise UserError(f"{self._path}: not samples of this command. Choose another output.")

    def _parse(self, line: str, at: int, read: Callable[[dict[str, Any]], Item]) -> Item:
        try:
            record = json.loads(line)
            settings = dict(record[self._key])
            item = read(record)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{self._path} line {at}: not a sample of this command. Choose another output."
            ) from error
        missing = self._later - settings.keys()
        self.unknown |= missing
        for name in self._settings | settings:
            theirs, ours = settings.get(name), self._settings.get(name)
            if theirs != ours and name not in missing:
                raise UserError(
                    f"{self._path} line {at}: generated with {in_short(name)} {quoted(theirs)}, "
                    f"not {quoted(ours)}. {self._advice}"
                )
        return item

    def __enter__(self) -> RecordFile[Item]:
        self._file = open_append(self._path, self._lines)
        if self._overwrite:
            self._file.truncate(0)
            self._lines, self._overwrite = [], False
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record and the settings to the end of the file, so that a kill cannot lose it.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        line = as_line({**record, self._key: self._settings})
        append_line(self._file, line)
        self._lines.append(line)
