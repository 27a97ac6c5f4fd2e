"""Read columns of a table (CSV, TSV), in whichever dialect it was saved."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gpt2.errors import UserError, quoted

# Delimiters that are detected, and what messages call them. A file whose lines are its only column
# is read with a delimiter that text does not contain: U+FFFF is not a character.
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_WHOLE_LINE = "\uffff"

_SAMPLE = 2**16  # characters at the start of a table from which its dialect is detected
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\r\n])"?\n', re.IGNORECASE)  # Excel's first line
_NAME = re.compile(r"[^\W\d][\w-]*")
_TEXT_COLUMN = "text"  # the usual name of the column with the text

# A quoted cell over this many lines, each of which would be a row of its own, was not meant as one
# cell. Commas also occur in prose, so fewer such lines may be chance.
_MERGED_LINES = {"\t": 2, ",": 10}
_MERGED_LINES_OF_OTHERS = 4


class Dialect(NamedTuple):
    """How the rows of a table are written."""

    delimiter: str
    quoting: bool  # whether quotes enclose cells


def check_delimiter(delimiter: str) -> None:
    """Check the setting `delimiter`.

    Raises:
        UserError: it is neither "auto" nor "tab" nor a single visible character.
    """
    usable = len(delimiter) == 1 and (delimiter.isprintable() or delimiter == "\t")
    if delimiter not in ("auto", "tab") and (not usable or delimiter == '"'):
        raise UserError(
            f"delimiter must be auto, tab or a single character, not {quoted(delimiter)}."
        )


def read_columns(
    lines: Iterator[str],
    name: str,
    *,
    default: str,
    delimiter: str,
    quoting: str,
    columns: Sequence[str],
    header: str,
    longest_cell: int,
    notice: Callable[[str], object],
    alternative: Sequence[str] = (),
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each row and its cells in these columns.

    Args:
        lines: the lines of the table with their newlines.
        name: of the file, for messages.
        default: the delimiter that the format of the file suggests.
        delimiter: "auto", "tab" or the delimiter.
        quoting: "auto", or "none" if quotes are ordinary characters.
        columns: name or number (from 1) of each; none for one column, "text" or the only one.
        header: "yes", "no" or "auto": whether the first row has the column names.
        longest_cell: maximum number of characters.
        notice: called with a sentence on the dialect and the columns.
        alternative: names of columns to read if none is requested and there is no "text".

    Raises:
        UserError: a column is not found, or a row is malformed or has another number of cells
            than the first one.
    """
    csv.field_size_limit(longest_cell)  # for all readers, as the module has no other way
    sample = _take_sample(lines)
    skipped = 0
    if sample and (separator := _SEPARATOR_LINE.fullmatch(sample[0])):
        default = separator[1]
        delimiter = default if delimiter == "auto" else delimiter
        sample, skipped = sample[1:], 1
    if delimiter == "auto":
        dialect = _detect(sample, default, quoting != "none", header, columns)
    else:
        dialect = Dialect("\t" if delimiter == "tab" else delimiter, quoting != "none")
    if quoting != "none" and not dialect.quoting:
        bad = skipped + (_badly_quoted(sample, Dialect(dialect.delimiter, True)) or 1)
        notice(
            f"{name} line {bad}: quotes do not enclose whole cells, so they are ordinary "
            "characters in this file. Fix that line, or use --quoting none if they are."
        )
    rows = _rows(itertools.chain(sample, lines), name, dialect, skipped)
    first = next(rows, None)
    if first is None:
        return
    _, names = first
    width = len(names)
    has_header = header == "yes" or (header == "auto" and _is_header(names, columns))
    if has_header and not columns and {*alternative} <= {*names} - {_TEXT_COLUMN}:
        columns = () if _TEXT_COLUMN in names else alternative
    given = names if has_header else None
    wanted: Sequence[str | None] = columns or [None]
    indexes = [_find_column(given, width, name, columns, column) for column in wanted]
    if width > 1 or header == "auto":
        shown = (quoted(names[index]) if has_header else str(index + 1) for index in indexes)
        which = f"column{'s' if len(indexes) > 1 else ''} {', '.join(shown)}"
        how = "has the column names" if has_header else "is text"
        told = _description(dialect, default, any(default in line for line in sample))
        notice(f"{name}: {told}reading {which} of {width}; the first row {how}.")
    for line, row in rows if has_header else itertools.chain([first], rows):
        if len(row) != width:
            raise UserError(
                f"{name} line {line}: number of cells is {len(row)}; expected {width} as in the "
                "first row. Quote cells that contain the delimiter, or set --delimiter."
            )
        yield line, [row[index] for index in indexes]


def _take_sample(lines: Iterator[str]) -> list[str]:
    """Return the first lines, at least one if there is one."""
    sample, size = [], 0
    for line in lines:
        sample.append(line)
        size += len(line)
        if size >= _SAMPLE:
            break
    return sample


def _description(dialect: Dialect, default: str, occurs: bool) -> str:
    """Return the part of the notice on a delimiter that is not the default."""
    if dialect.delimiter == _WHOLE_LINE:
        return "lines are not divided into cells; " if occurs else ""
    if dialect.delimiter == default:
        return ""
    shown = _NAMES.get(dialect.delimiter, f"the character {dialect.delimiter!r}")
    return f"cells are separated by {shown}; "


def _detect(
    sample: list[str], default: str, quoting: bool, header: str, columns: Sequence[str]
) -> Dialect:
    """Return the dialect that fits the first rows of a table."""
    candidates: dict[str, list[list[str]]] = {}  # rows, by delimiters that divide the first one
    for delimiter in dict.fromkeys([default, *_NAMES]):
        rows = _sample_rows(sample, Dialect(delimiter, quoting))
        if rows and len(rows[0]) > 1:
            candidates[delimiter] = rows
    even = [found for found, rows in candidates.items() if len(set(map(len, rows))) == 1]
    named = [
        found
        for found, rows in candidates.items()
        if header == "yes" or (header == "auto" and _is_header(rows[0], columns))
    ]
    for found, rows in list(candidates.items()):  # what may be punctuation
        is_table = found in even and found in named
        if found != default and (len(rows) == 1 or (_is_prose(sample, found) and not is_table)):
            del candidates[found]
    even, named = ([found for found in some if found in candidates] for some in (even, named))
    if default in even and _is_decimal(sample, default):
        even = [*(found for found in even if found != default), default]
    for found in (*(found for found in even if found in named), *even):
        return Dialect(found, quoting)
    if default in candidates and (columns or not _is_prose(sample, default)):
        return Dialect(default, quoting)
    if named and named[0] != default:
        return Dialect(named[0], quoting)
    # The lines are the only column. Quotes within them are those of speech.
    whole = Dialect(_WHOLE_LINE, quoting)
    return Dialect(_WHOLE_LINE, False) if _badly_quoted(sample, whole) else whole


def _sample_rows(sample: list[str], dialect: Dialect) -> list[list[str]]:
    """Return the rows of the sample that are complete and well-formed."""
    rows = []
    try:
        for row in _reader(iter(sample), dialect):
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows


def _is_prose(sample: list[str], delimiter: str) -> bool:
    """Return whether white space follows the delimiter nearly always, as in sentences."""
    text = "".join(sample)
    spaced = len(re.findall(re.escape(delimiter) + r"\s", text))
    return delimiter in ",;" and spaced >= 0.9 * text.count(delimiter)


def _is_decimal(sample: list[str], delimiter: str) -> bool:
    """Return whether the delimiter is always between digits, as a decimal comma."""
    text = "".join(sample)
    return len(re.findall(rf"(?<=\d){re.escape(delimiter)}(?=\d)", text)) == text.count(delimiter)


def _badly_quoted(sample: list[str], dialect: Dialect) -> int | None:
    """Return the first line of the sample whose quotes do not enclose a whole cell, or None."""
    waiting = iter(sample)
    try:
        for _ in _reader(waiting, dialect):
            pass
    except csv.Error as error:
        # The sample may end within a cell.
        return None if "unexpected end" in str(error) else len(sample) - len([*waiting])
    return None


def _reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoting else csv.QUOTE_NONE,
        strict=True,
    )


def _rows(
    lines: Iterable[str], name: str, dialect: Dialect, skipped: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each row that is not blank.

    Args:
        skipped: lines of the file before these.
    """
    own_lines: list[str] = []  # of the row that is being read

    def remembered() -> Iterator[str]:
        for line in lines:
            own_lines.append(line)
            yield line

    reader = _reader(remembered(), dialect)
    width = 0
    start = skipped + 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{name} line {start}: malformed quotes ({error}). Fix the quotes of the row that "
                "starts here or, if quotes are ordinary characters, use --quoting none."
            ) from error
        if row is None:
            return
        if row:
            width = width or len(row)
            if len(own_lines) > 1 and _is_merged(own_lines, dialect.delimiter, width):
                raise UserError(
                    f"{name} line {start}: a quoted cell continues to line "
                    f"{start + len(own_lines) - 1}, but every line has {width} cells of its own. "
                    "If quotes are ordinary characters, use --quoting none; otherwise fix them."
                )
            yield start, row
        start += len(own_lines)
        own_lines.clear()


def _is_merged(lines: list[str], delimiter: str, width: int) -> bool:
    """Return whether the lines of one row look like rows that unbalanced quotes merged."""
    fewest = _MERGED_LINES.get(delimiter, _MERGED_LINES_OF_OTHERS)
    return (
        width > 1
        and len(lines) >= fewest
        and all(line.count(delimiter) == width - 1 for line in lines)
    )


def _is_header(row: list[str], columns: Sequence[str]) -> bool:
    """Return whether a first row looks like column names.

    It does if there is a column "text", or if its cells are different single words and not numbers.
    If a column is requested by name, the first row must be names.
    """
    if _TEXT_COLUMN in row or not all(column.isdecimal() for column in columns):
        return True
    return len(set(row)) == len(row) and all(_NAME.fullmatch(cell.strip()) for cell in row)


def _find_column(
    names: list[str] | None, width: int, file: str, columns: Sequence[str], column: str | None
) -> int:
    """Return the index of one of the columns to read, from 0."""
    if names is not None:
        wanted = _TEXT_COLUMN if column is None else column
        if names.count(wanted) > 1:
            raise UserError(
                f"{file}: {names.count(wanted)} columns have the name {quoted(wanted)}. Give each "
                "column a name of its own."
            )
        if wanted in names:
            return names.index(wanted)
    if column is None and width == 1:
        return 0
    if column is not None and column.isdecimal() and 1 <= int(column) <= width:
        return int(column) - 1
    choices = f"1 to {width} (there are no names)" if names is None else listed(names)
    if len(columns) > 1:
        raise UserError(
            f"{file}: no column {column!r}, which the template needs. The table has {choices}."
        )
    what = "several columns" if column is None else f"no column {column!r}"
    raise UserError(f"{file}: {what}. Choose one with --column: {choices}.")


def listed(names: Iterable[str]) -> str:
    """Return names for a message, the first 20 of them."""
    shown = [quoted(name, 40) for name in itertools.islice(names, 21)]
    return ", ".join(shown[:20] + ["..."] * (len(shown) > 20)) or "no fields"
