"""From files to documents: whole texts, lines, cells of a table or fields of JSON records."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from gpt2.checks import check_fields, setting
from gpt2.data.sources import Source, open_sources
from gpt2.errors import UserError, quoted

FORMATS = ("auto", "text", "csv", "tsv", "jsonl", "json")
HEADERS = ("auto", "yes", "no")
ERRORS = ("strict", "replace")
NORMALIZATIONS = ("none", "nfc")

BYTE_ORDER_MARK = "\ufeff"

# Characters: a record has to be held as a whole, unlike a text. ReaderSettings one takes several times
# its size.
LONGEST_RECORD = 50_000_000

_FIELD = "text"  # what most call the field, or the column, that holds the text
_BINARY_WITHIN = 2**13  # bytes at the beginning, a zero among which tells that a file is no text
_SURROGATE = re.compile("[\ud800-\udfff]")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class ReaderSettings:
    """How files of text become documents."""

    encoding: str = setting("utf-8", "text encoding of the files", metavar="NAME")
    errors: str = setting(
        "strict",
        "bytes that are not in this encoding: strict refuses the file, replace puts U+FFFD",
        choices=ERRORS,
    )
    format: str = setting(
        "auto", "format of the files; auto decides by the file name", choices=FORMATS
    )
    column: str | None = setting(
        None,
        'table column with the text, by name or number from 1 (default: "text", or the only one)',
        metavar="NAME|N",
    )
    header: str = setting(
        "auto", "whether the first row of a table has the column names", choices=HEADERS
    )
    field: str = setting(_FIELD, "JSON field with the text", metavar="NAME")
    lines: bool = setting(
        False,
        "treat each line of a text file as a document",
        aliases=("line_by_line",),
    )
    normalize: str = setting("none", "Unicode normalization of the text", choices=NORMALIZATIONS)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: one of them is not valid.
        """
        check_fields(self)
        try:
            b" ".decode(self.encoding, "replace")
        except LookupError as error:
            raise UserError(
                f"Unknown text encoding {self.encoding!r}; the usual one is utf-8."
            ) from error

    def format_of(self, source: Source) -> str:
        """The format of a file, by what it is called."""
        ending = PurePath(source.name.lower()).suffix.removeprefix(".")
        return self.format if self.format != "auto" else ending if ending in FORMATS else "text"


UTF_8 = ReaderSettings()


class Piece(NamedTuple):
    """A part of a document; the pieces of a document follow each other."""

    text: str  # or, from a file of tokens, an array of them
    source: str  # the name of the file
    ends: bool  # whether it is the last of its document


def read_pieces(
    file: Path,
    reading: ReaderSettings,
    *,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
    skip_binary: bool = False,
    keep_line_ends: bool = False,
) -> Iterator[Piece]:
    """The documents of a file in pieces of bounded size, so that a document may be of any.

    Every line end has become a single newline. A text's byte order mark is still there.

    Args:
        keep_line_ends: leave the line ends within whole texts and JSON strings as they are.
        progress: called with the size in bytes of what has been read.
        notice: called with a sentence on what the user may want to know.
        skip_binary: whether to pass over, with a notice, a file that is no text.

    Raises:
        UserError: the file cannot be read, or is not what its name or the settings say.
    """
    wide = b"\0" in "a".encode(reading.encoding)  # as in UTF-16, where zeros are part of text
    for source in open_sources(file, progress):
        first = next(source.blocks, b"")
        if (skip_binary or source.inside) and not wide and b"\0" in first[:_BINARY_WITHIN]:
            notice(f"{source.name} is skipped: it is no text, but a binary file.")
            continue
        kind = reading.format_of(source)
        translate = not (keep_line_ends and kind == "text" and not reading.lines)
        blocks = itertools.chain([first], source.blocks)
        texts = _decoded(blocks, source.name, reading, translate)
        if kind == "text":
            yield from _lines(texts, source.name) if reading.lines else _whole(texts, source.name)
            continue
        texts = _without_mark(texts)
        if kind in _DELIMITERS:
            records = _cells(texts, source.name, _DELIMITERS[kind], reading, notice)
        elif kind == "jsonl":
            records = _fields(_json_lines(texts, source.name), source.name, reading)
        else:
            records = _fields(_json_values(texts, source.name), source.name, reading)
        for record in records:
            text = record if keep_line_ends else normalize_line_ends(record)
            yield Piece(text, source.name, True)


def normalize_line_ends(text: str) -> str:
    r"""Return a text with every line end (`\r\n`, `\r` or `\n`) as `\n`."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(
    blocks: Iterable[bytes], name: str, reading: ReaderSettings, translate: bool
) -> Iterator[str]:
    """The text of the bytes, a block at a time; `translate` makes every line end a newline."""
    codec = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
    decoder = io.IncrementalNewlineDecoder(codec, translate=translate)
    end = 0
    for block in itertools.chain(blocks, [b""]):
        end += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # What the decoder was given ends where we are, and begins with what was left over.
            offset = end - len(error.object) + error.start
            raise UserError(
                f"{name} is not {reading.encoding} text: the byte at offset {offset} cannot be "
                "decoded; give the file's --encoding (for example cp1252), convert it to UTF-8, or "
                "let --errors replace put a mark in its place."
            ) from error
        except UnicodeError as error:
            raise UserError(
                f"{name} is not {reading.encoding} text ({error}); give the file's --encoding."
            ) from error
        if text:
            yield text


def _without_mark(texts: Iterator[str]) -> Iterator[str]:
    for text in itertools.islice(texts, 1):
        yield text.removeprefix(BYTE_ORDER_MARK)
    yield from texts


def _whole(texts: Iterable[str], name: str) -> Iterator[Piece]:
    for text in texts:
        yield Piece(text, name, False)
    yield Piece("", name, True)


def _lines(texts: Iterable[str], name: str) -> Iterator[Piece]:
    for text in texts:
        *ended, begun = text.split("\n")
        for line in ended:
            yield Piece(line, name, True)
        if begun:
            yield Piece(begun, name, False)
    yield Piece("", name, True)


def _record_lines(texts: Iterable[str], name: str) -> Iterator[str]:
    """Whole lines, their ends included."""
    parts: list[str] = []
    length = 0
    number = 1
    for text, _, ends in _lines(texts, name):
        parts.append(text)
        length += len(text)
        if length > LONGEST_RECORD:
            raise _too_long(name, number)
        if ends:
            yield "".join(parts) + "\n"
            parts.clear()
            length = 0
            number += 1


def _too_long(name: str, line: int) -> UserError:
    return UserError(
        f"{name}: the record that begins in line {line} is longer than {LONGEST_RECORD:,} "
        "characters; make a text file of it, which may be of any size, or mend its quotes."
    )


def _json_lines(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, with the number of the line."""
    for number, line in enumerate(_record_lines(texts, name), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _broken_json(name, number, error) from error


def _broken_json(name: str, line: int, error: Exception) -> UserError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else error
    return UserError(f"{name}, line {line} is not valid JSON ({reason}); mend it or delete it.")


def _json_values(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """The values of a list, or of several after each other, with the line in which each begins.

    A value is tried with what has been read, and again when there is twice as much, so that the
    whole need never be in memory and the cost stays in proportion to it.
    """
    decoder = json.JSONDecoder()
    texts = iter(texts)
    buffer, at, line = "", 0, 1
    in_list = False
    more = True

    def read_on() -> None:
        """Drop what has been dealt with, and read until there is twice as much as was left."""
        nonlocal buffer, at, more
        parts = [buffer[at:]]
        wanted = 2 * len(parts[0]) + 1
        while more and sum(map(len, parts)) < wanted:
            text = next(texts, None)
            more = text is not None
            parts.append(text or "")
        buffer, at = "".join(parts), 0

    while True:
        start = _WHITE_SPACE.match(buffer, at).end()
        line += buffer.count("\n", at, start)
        at = start
        if at == len(buffer):
            if not more:
                break
            read_on()
            continue
        if buffer[at] in (",]" if in_list else "["):
            in_list = buffer[at] != "]"
            at += 1
            continue
        try:
            value, stop = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            if more and len(buffer) - at <= LONGEST_RECORD:
                read_on()
                continue
            if more:
                raise _too_long(name, line) from error
            if isinstance(error, json.JSONDecodeError):
                line += buffer.count("\n", at, error.pos)
            raise _broken_json(name, line, error) from error
        yield line, value
        line += buffer.count("\n", at, stop)
        at = stop
    if in_list:
        raise UserError(f"{name} ends in the middle of its list; fetch it again or mend it.")


_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def _fields(values: Iterable[tuple[int, Any]], name: str, reading: ReaderSettings) -> Iterator[str]:
    """The text of each record."""
    for line, value in values:
        text = value
        if isinstance(value, dict):
            if reading.field not in value:
                raise UserError(
                    f"{name}, line {line}: the record has no field {reading.field!r} but "
                    f"{_listed(value)}; name the one that holds the text with --field."
                )
            text = value[reading.field]
        if text is None:
            continue
        if not isinstance(text, str):
            what = f"the field {reading.field!r}" if isinstance(value, dict) else "the record"
            raise UserError(
                f"{name}, line {line}: {what} is no text but {_JSON_NAMES[type(text)]}; "
                "name a field that holds text with --field."
            )
        if half := _SURROGATE.search(text):
            if reading.errors == "strict":
                raise UserError(
                    f"{name}, line {line}: the text holds half a character (the lone surrogate "
                    f"U+{ord(half[0]):04X}); mend it, or let --errors replace put a mark there."
                )
            text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        yield text


_JSON_NAMES = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
_JSON_NAMES |= {dict: "an object"}


def _cells(
    texts: Iterable[str],
    name: str,
    delimiter: str,
    reading: ReaderSettings,
    notice: Callable[[str], object],
) -> Iterator[str]:
    """The text of each row."""
    csv.field_size_limit(LONGEST_RECORD)  # of all readers; the module knows no other way
    rows = csv.reader(_record_lines(texts, name), delimiter=delimiter, strict=True)

    begin = 1  # the line in which a row begins; its quotes may reach over several

    def next_row() -> list[str] | None:
        nonlocal begin
        row: list[str] | None = []
        while row == []:
            begin = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise UserError(
                    f"{name}: what begins in line {begin} is no row of a table ({error}); mend its "
                    "quotes."
                ) from error
        return row

    row = next_row()
    if row is None:
        return
    header = reading.header == "yes" or (reading.header == "auto" and _has_header(row, reading))
    column = _column(row if header else None, len(row), name, reading)
    if len(row) > 1 or reading.header == "auto":
        which = f"column {quoted(row[column])}" if header else f"column {column + 1}"
        first = "names the columns" if header else "is text, too"
        notice(f"{name}: reading {which} of {len(row)}; the first row {first}.")
    width, told = len(row), False
    if header:
        row = next_row()
    while row is not None:
        if column >= len(row):
            raise UserError(
                f"{name}, line {begin}: the row ends before column {column + 1}; "
                "mend it or delete it."
            )
        if len(row) > width and not told:
            notice(
                f"{name}, line {begin}: the row has {len(row)} cells and not {width} as the first; "
                "if there is text in the others, put quotes around it."
            )
            told = True
        yield row[column]
        row = next_row()


def _has_header(row: list[str], reading: ReaderSettings) -> bool:
    """Whether a first row looks like names of columns.

    It does if there is a column "text", or if its cells are single words, all different and none
    a number. Where a column is wished for by name, there has to be a row of names.
    """
    if _FIELD in row or not (reading.column or "1").isdecimal():
        return True
    return len(set(row)) == len(row) and all(_NAME.fullmatch(cell.strip()) for cell in row)


_NAME = re.compile(r"[^\W\d][\w-]*")


def _column(header: list[str] | None, width: int, name: str, reading: ReaderSettings) -> int:
    """The place of the column that is read, from 0."""
    wished = reading.column
    if header is not None:
        for candidate in (wished, _FIELD if wished is None else None):
            if candidate in header:
                return header.index(candidate)
    if wished is None and width == 1:
        return 0
    if wished is not None and wished.isdecimal() and 1 <= int(wished) <= width:
        return int(wished) - 1
    columns = f"1 to {width}, as they have no names" if header is None else _listed(header)
    what = "it has several columns" if wished is None else f"it has no column {wished!r}"
    raise UserError(f"{name}: {what}; say with --column which to read: {columns}.")


def _listed(names: Iterable[str]) -> str:
    names = [quoted(name, 40) for name in itertools.islice(names, 21)]
    return ", ".join(names[:20] + ["and others"] * (len(names) > 20)) or "none at all"
