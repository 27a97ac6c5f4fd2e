"""Read files as documents: whole texts, lines, cells of a table, or fields of JSON records."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from gpt2.checks import check_fields, setting
from gpt2.data.file_types import (
    PROBE,
    binary_kind,
    is_text_encoding,
    marked_encoding,
    unmarked_encoding,
)
from gpt2.data.sources import Source, open_sources
from gpt2.data.tables import check_delimiter, listed, read_columns
from gpt2.data.templates import (
    PAIRS,
    PLAIN_CHAT,
    Span,
    Template,
    conversation,
    has_completion,
    messages_of,
)
from gpt2.errors import UserError, quoted
from gpt2.jsonl import Ambiguous, unique_fields

FORMATS = ("auto", "text", "csv", "tsv", "jsonl", "json")
HEADERS = ("auto", "yes", "no")
QUOTING = ("auto", "none")
ERRORS = ("strict", "replace")
NORMALIZATIONS = ("none", "nfc")

BYTE_ORDER_MARK = "\ufeff"

LONGEST_RECORD = 50_000_000  # characters; a record, unlike a text, has to be in memory as a whole

_FIELD = "text"  # the usual name of the field or column with the text
_MESSAGES = "messages"  # the usual name of the field with a conversation
_SURROGATE = re.compile("[\ud800-\udfff]")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class ReaderSettings:
    """How files of text become documents.

    `chat_template` has no flag: it is the template of conversations that suits the vocabulary.
    """

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
    delimiter: str = setting(
        "auto",
        "cell delimiter of a table: a character, tab, or auto to detect it",
        metavar="CHAR",
    )
    quoting: str = setting(
        "auto",
        "quotes in a table: auto if they enclose cells, none if they are ordinary characters",
        choices=QUOTING,
    )
    field: str = setting(_FIELD, "JSON field with the text", metavar="NAME")
    template: str = setting(
        "",
        r"join fields or columns to a text, the last one as the completion: 'Q: {question}\nA: "
        r"{answer}'; {user} and {assistant} for conversations",
    )
    chat_template: str = PLAIN_CHAT
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
        check_delimiter(self.delimiter)
        if self.template:
            Template(self.template)
            if self.column is not None or self.field not in (_FIELD, _MESSAGES):
                flag = "field" if self.column is None else "column"
                raise UserError(
                    f"template names the fields of a record, so {flag} cannot be combined with it. "
                    f"Omit {flag}."
                )
        if not is_text_encoding(self.encoding):
            raise UserError(
                f"Unknown text encoding {quoted(self.encoding)}. Use utf-8, or for example cp1252."
            )

    def format_of(self, source: Source) -> str:
        """Return the format of a file, by its name unless `format` is set."""
        ending = PurePath(source.name.lower()).suffix.removeprefix(".")
        return self.format if self.format != "auto" else ending if ending in FORMATS else "text"


UTF_8 = ReaderSettings()


class Piece(NamedTuple):
    """A part of a document; the pieces of a document follow each other."""

    text: Any  # a string or, from an .npz file, an array of tokens
    source: str  # name of the file
    ends: bool  # whether it is the last piece of its document
    template: Template | None = None  # that the document was made with
    completion: bool = False  # whether it is a completion of that template


def read_pieces(
    file: Path,
    reading: ReaderSettings,
    *,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
    skip_binary: bool = False,
    keep_line_ends: bool = False,
) -> Iterator[Piece]:
    """Yield the documents of a file in pieces of bounded size.

    Line ends become newlines. The byte order mark of a text is kept.

    Args:
        file: a text file, table or JSON file, perhaps compressed or in an archive.
        reading: how the file becomes documents.
        progress: called with the number of bytes read since the last call.
        notice: called with sentences that the user may want to see.
        skip_binary: whether to skip a binary file, with a notice.
        keep_line_ends: leave the line ends within whole texts and JSON strings as they are.

    Raises:
        UserError: the file cannot be read, or does not match its name or the settings.
    """
    for source in open_sources(file, progress):
        first = _first_blocks(source.blocks)
        among_others = skip_binary or source.inside
        encoding = _encoding_of(first[0], reading)
        problem = _not_text(first[0], encoding, reading, among_others)
        if problem and among_others:
            notice(f"{source.name} is skipped: {problem[0]}.")
            continue
        if problem:
            raise UserError(f"{source.name}: {problem[0]}. {problem[1]}")
        kind = reading.format_of(source)
        translate = not (keep_line_ends and kind == "text" and not reading.lines)
        blocks = itertools.chain(first[1], source.blocks)
        texts = _decoded(blocks, source.name, encoding, reading.errors, translate)
        if kind == "text":
            if reading.template:
                raise UserError(
                    f"{source.name} is plain text, which has no fields for the template. Use JSON "
                    "lines or a table (.jsonl, .json, .csv, .tsv), or set --format."
                )
            yield from _lines(texts, source.name) if reading.lines else _whole(texts, source.name)
            continue
        texts = _without_mark(texts)
        if kind in _DELIMITERS:
            records = _cells(
                _record_lines(texts, source.name),
                source.name,
                reading,
                _DELIMITERS[kind],
                notice,
            )
        elif kind == "jsonl":
            records = _fields(_json_lines(texts, source.name), source.name, reading)
        else:
            records = _fields(_json_values(texts, source.name), source.name, reading)
        skipped = 0
        for template, spans in records:
            if template is not None and not has_completion(spans):
                skipped += 1
                continue
            for number, (text, completion) in enumerate(spans, start=1):
                text = text if keep_line_ends else normalize_line_ends(text)
                yield Piece(text, source.name, number == len(spans), template, completion)
        if skipped:
            notice(f"{source.name}: {skipped:,} records without a completion are skipped.")


def find_template(files: Iterable[Path], reading: ReaderSettings) -> Template | None:
    """Return the template that the first document is made with, None if it is a plain text.

    Raises:
        UserError: see `read_pieces`.
    """
    for file in files:
        for piece in read_pieces(file, reading, skip_binary=True):
            return piece.template
    return None


def normalize_line_ends(text: str) -> str:
    r"""Return a text with every line end (`\r\n`, `\r` or `\n`) as `\n`."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _first_blocks(blocks: Iterator[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the start of a file, at least `PROBE` bytes if it has them, and its blocks."""
    first: list[bytes] = []
    while sum(map(len, first)) < PROBE and (block := next(blocks, b"")):
        first.append(block)
    return (first[0] if len(first) == 1 else b"".join(first)), first


def _encoding_of(start: bytes, reading: ReaderSettings) -> str:
    """Return the encoding of a file: that of its byte order mark, if none but UTF-8 is set."""
    marked = marked_encoding(start) if codecs.lookup(reading.encoding).name == "utf-8" else None
    return marked or reading.encoding


def _not_text(
    start: bytes, encoding: str, reading: ReaderSettings, among_others: bool
) -> tuple[str, str] | None:
    """Return what a file is and what to do if it is not text in this encoding; otherwise None."""
    if known := binary_kind(start):
        return f"{known[0]}, not text", known[1]
    needs_mark = codecs.lookup(encoding).name in ("utf-16", "utf-32")
    if start and needs_mark and not marked_encoding(start):
        needed = f"text without the byte order mark that {encoding} needs"
        return needed, f"Read it with --encoding {encoding}-le or {encoding}-be."
    wide = b"\0" in "a".encode(encoding)  # as in UTF-16, where text contains NUL bytes
    if wide or b"\0" not in start[:PROBE]:
        return None
    if guess := unmarked_encoding(start):
        text = f"probably {guess} text without a byte order mark"
        return text, f"Read it with --encoding {guess}, or save it as UTF-8."
    if reading.format == "text" and not among_others:
        return None
    return (
        "a binary file (it contains NUL bytes), not text",
        "Save it as plain text (UTF-8) first, or use --format text to keep the NUL bytes.",
    )


def _decoded(
    blocks: Iterable[bytes], name: str, encoding: str, errors: str, translate: bool
) -> Iterator[str]:
    """Yield the text of the blocks; `translate` makes every line end a newline."""
    codec = codecs.getincrementaldecoder(encoding)(errors)
    decoder = io.IncrementalNewlineDecoder(codec, translate=translate)
    end = 0
    for block in itertools.chain(blocks, [b""]):
        end += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # The decoder's input starts with the bytes left over from the last block.
            offset = end - len(error.object) + error.start
            raise UserError(
                f"{name} is not {encoding} text: the byte at offset {offset} cannot be "
                "decoded. Set --encoding (for example cp1252), convert the file to UTF-8, or use "
                "--errors replace."
            ) from error
        except UnicodeError as error:
            raise UserError(f"{name} is not {encoding} text ({error}). Set --encoding.") from error
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
    """Yield whole lines with their newlines."""
    parts: list[str] = []
    length = 0
    number = 1
    for piece in _lines(texts, name):
        parts.append(piece.text)
        length += len(piece.text)
        if length > LONGEST_RECORD:
            raise _too_long(name, number)
        if piece.ends:
            yield "".join(parts) + "\n"
            parts.clear()
            length = 0
            number += 1


def _too_long(name: str, line: int) -> UserError:
    return UserError(
        f"{name} line {line}: the record that starts here is longer than {LONGEST_RECORD:,} "
        "characters. Fix its quotes, or save it as a text file, which may have any size."
    )


def _json_lines(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each line that is not blank."""
    for number, line in enumerate(_record_lines(texts, name), start=1):
        if line.strip():
            try:
                yield number, json.loads(line, object_pairs_hook=unique_fields)
            except (ValueError, RecursionError) as error:
                raise _invalid_json(name, number, error) from error


def _invalid_json(name: str, line: int, error: Exception) -> UserError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else error
    return UserError(f"{name} line {line}: invalid JSON ({reason}). Fix the line or delete it.")


def _json_values(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """Yield the values of a list, or of a sequence of values, with the first line of each.

    A value that is incomplete is parsed again when twice as much has been read, so that the whole
    file need not be in memory and the time stays linear.
    """
    decoder = json.JSONDecoder(object_pairs_hook=unique_fields)
    texts = iter(texts)
    buffer, at, line = "", 0, 1
    in_list = False
    more = True

    def read_more() -> None:
        """Drop what has been parsed, and read until there is twice as much as was left."""
        nonlocal buffer, at, more
        parts = [buffer[at:]]
        wanted = 2 * len(parts[0]) + 1
        while more and sum(map(len, parts)) < wanted:
            text = next(texts, None)
            more = text is not None
            parts.append(text or "")
        buffer, at = "".join(parts), 0

    while True:
        if found := _WHITE_SPACE.match(buffer, at):
            line += buffer.count("\n", at, found.end())
            at = found.end()
        if at == len(buffer):
            if not more:
                break
            read_more()
            continue
        if buffer[at] in (",]" if in_list else "["):
            in_list = buffer[at] != "]"
            at += 1
            continue
        try:
            value, stop = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            if more and len(buffer) - at <= LONGEST_RECORD:
                read_more()
                continue
            if more:
                raise _too_long(name, line) from error
            if isinstance(error, json.JSONDecodeError):
                line += buffer.count("\n", at, error.pos)
            raise _invalid_json(name, line, error) from error
        yield line, value
        line += buffer.count("\n", at, stop)
        at = stop
    if in_list:
        raise UserError(f"{name}: the JSON list has no end. Download the file again or fix it.")


_WHITE_SPACE = re.compile(r"[ \t\n\r]+")


# A document of a record: its template, None for plain text, and the parts of its text.
_Record = tuple[Template | None, list[Span]]


def _cells(
    lines: Iterator[str],
    name: str,
    reading: ReaderSettings,
    default: str,
    notice: Callable[[str], object],
) -> Iterator[_Record]:
    """Yield the text of each row of a table."""
    template = Template(reading.template) if reading.template else None
    pairs = Template(PAIRS)
    columns = [] if reading.column is None else [reading.column]
    rows = read_columns(
        lines,
        name,
        default=default,
        delimiter=reading.delimiter,
        quoting=reading.quoting,
        columns=template.fields if template else columns,
        header=reading.header,
        longest_cell=LONGEST_RECORD,
        notice=notice,
        alternative=pairs.fields,
    )
    for _, cells in rows:
        if template is None and len(cells) == 1:
            yield None, [Span(cells[0], False)]
        else:
            chosen = template or pairs
            record = dict(zip(chosen.fields, cells, strict=True))
            yield chosen, chosen.spans(messages_of(chosen.fields, record))


def _fields(
    values: Iterable[tuple[int, Any]], name: str, reading: ReaderSettings
) -> Iterator[_Record]:
    """Yield the text of each record."""
    given = Template(reading.template) if reading.template else None
    chat, pairs = Template(reading.chat_template), Template(PAIRS)

    def kind_of(record: dict[str, Any]) -> tuple[Template | None, str]:
        """Return the template of a record, and its field with a conversation if it has one."""
        field = reading.field if isinstance(record.get(reading.field), list) else _MESSAGES
        if given is not None:
            return given, field if given.is_chat and field in record else ""
        if reading.field in record and field != reading.field:
            return None, ""
        if field in record:
            return chat, field
        return (pairs if record.keys() >= {*pairs.fields} else None), ""

    for line, value in values:
        where = f"{name} line {line}"
        if isinstance(value, Ambiguous):
            raise UserError(f"{where}: {value.problem}")
        template, field = kind_of(value) if isinstance(value, dict) else (given, "")
        if template is None:
            if (text := _text(value, where, reading)) is not None:
                yield None, [Span(text, False)]
            continue
        if not isinstance(value, dict):
            raise UserError(
                f"{where}: the record is {_json_name(value)}; expected an object with the fields "
                f"{listed(template.fields)} of the template."
            )
        if field:
            try:
                messages = conversation(template, value[field])
            except ValueError as error:
                raise UserError(f"{where}: {error}") from error
        else:
            texts = {key: _value(value, key, where) for key in template.fields}
            messages = messages_of(template.fields, texts)
        yield (
            template,
            [
                Span(_encodable(span.text, where, reading), span.completion)
                for span in template.spans(messages)
            ],
        )


def _text(value: Any, where: str, reading: ReaderSettings) -> str | None:
    """Return the text of a record without a template, None if it has none."""
    text = value
    if isinstance(value, dict):
        if reading.field not in value:
            raise UserError(
                f"{where}: no field {reading.field!r}; the record has {listed(value)}. Name the "
                "field with the text with --field, or join fields with --template."
            )
        text = value[reading.field]
    if text is None:
        return None
    if not isinstance(text, str):
        what = f"field {reading.field!r}" if isinstance(value, dict) else "the record"
        raise UserError(
            f"{where}: {what} is {_json_name(text)}; expected a string. Name a field with text "
            "with --field."
        )
    return _encodable(text, where, reading)


def _value(record: dict[str, Any], key: str, where: str) -> str:
    """Return the text of a field that a template needs; numbers become text."""
    if key not in record:
        raise UserError(
            f"{where}: no field {key!r}, which the template needs; the record has "
            f"{listed(record)}. Correct the record or --template."
        )
    value = record[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return value or ""
    raise UserError(
        f"{where}: field {key!r} is {_json_name(value)}; expected a string or a number. Correct "
        "the record, or name another field in --template."
    )


def _encodable(text: str, where: str, reading: ReaderSettings) -> str:
    """Return the text without lone surrogates, which `errors` may allow to replace."""
    if half := _SURROGATE.search(text):
        if reading.errors == "strict":
            raise UserError(
                f"{where}: the text contains a lone surrogate (U+{ord(half[0]):04X}), which UTF-8 "
                "cannot encode. Fix it, or use --errors replace."
            )
        text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a string")


_JSON_NAMES = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
_JSON_NAMES |= {dict: "an object", type(None): "null"}
