"""Files of every kind become the documents they hold, or a sentence says where they do not."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import random
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from gpt2.data import readers, sources
from gpt2.data.readers import ReaderSettings, read_pieces
from gpt2.errors import UserError


def read(path: Path, notices: list[str] | None = None, **reading: object) -> list[str]:
    """The documents of a file."""
    found, parts = [], []
    note = [].append if notices is None else notices.append
    for text, source, ends, *_ in read_pieces(path, ReaderSettings(**reading), notice=note):
        assert source.startswith(str(path.with_suffix(""))[:-4])
        parts.append(text)
        if ends:
            found.append("".join(parts))
            parts = []
    assert not parts
    return found


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# Texts.


def test_a_text_is_one_document(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "a.py", "README", "a.b.c", "a.TXT"):
        assert read(written(tmp_path / name, "one\n\ntwo\n")) == ["one\n\ntwo\n"]


def test_every_line_end_becomes_a_newline(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"\ra\r\nb\rc\nd\r\r\ne\n\rf\r")
    assert read(path) == ["\na\nb\nc\nd\n\ne\n\nf\n"]
    # What Python's text mode, which 2019 read with, makes of the same bytes.
    assert read(path) == [path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_no_border_of_blocks_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(sources, "BLOCK", block)
    path = written(tmp_path / "a.txt", "\ufeffä\r\n日本\r\r\n\nein 😀 Ende\r")
    assert read(path) == ["\ufeffä\n日本\n\n\nein 😀 Ende\n"]
    assert read(path, lines=True) == ["\ufeffä", "日本", "", "", "ein 😀 Ende", ""]
    table = written(tmp_path / "a.csv", '\ufefftext,b\r\n"ä\r\n""日""",1\r\n,2\r\n')
    assert read(table) == ['ä\n"日"', ""]
    records = [{"text": "ä\n"}, {"text": "", "n": [1, {"x": None}]}, {"text": "😀]"}]
    listed = written(tmp_path / "a.json", "\ufeff" + json.dumps(records, ensure_ascii=False))
    assert read(listed) == ["ä\n", "", "😀]"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be", "utf-8-sig", "shift_jis"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "日本\r\ntext" if encoding == "shift_jis" else "naïve\r\ntext"
    path = written(tmp_path / "a.txt", text.encode(encoding))
    assert read(path, encoding=encoding) == [text.replace("\r", "")]


@pytest.mark.parametrize("block", [4, 2**20])
def test_bytes_that_are_no_utf8_are_reported_with_file_and_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(sources, "BLOCK", block)
    path = written(tmp_path / "latin.txt", b"0123\r\n6n\xc3\xa4a\xefve\r\n")
    with pytest.raises(UserError, match=r"latin\.txt is not utf-8 text.* offset 11 .*--encoding"):
        read(path)
    assert read(path, errors="replace") == ["0123\n6näa\ufffdve\n"]
    # Also where a character begins and never ends.
    written(path, b"0123456\xe6\x97")
    with pytest.raises(UserError, match="offset 7 "):
        read(path)


def test_utf16_without_its_mark_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "text".encode("utf-16-le"))
    for errors in ("strict", "replace"):
        with pytest.raises(UserError, match=r"a\.txt.*byte order mark.*--encoding utf-16-le"):
            read(path, encoding="utf-16", errors=errors)


def test_settings_that_cannot_be_are_told() -> None:
    for encoding in ("utf-88", "hex", "rot13"):
        with pytest.raises(UserError, match=f"encoding '{encoding}'.*utf-8"):
            ReaderSettings(encoding)
    with pytest.raises(UserError, match="errors must be one of strict, replace, not 'ignore'"):
        ReaderSettings(errors="ignore")


def test_each_line_may_be_a_document(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "one\r\n\ntwo three\n  four\u2028five\n\x0csix")
    assert read(path, lines=True) == ["one", "", "two three", "  four\u2028five", "\x0csix"]


def test_only_newlines_and_carriage_returns_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
    path = written(tmp_path / "a.txt", f"{text}\r{text}\r\n{text}\n{text}")
    assert read(path, lines=True) == [text] * 4
    record = json.dumps({"text": text}, ensure_ascii=False)
    assert read(written(tmp_path / "a.jsonl", f"{record}\r{record}\n")) == [text] * 2
    assert read(written(tmp_path / "a.json", f"[{record},\r{record}]")) == [text] * 2


# Tables.

POEMS = (
    "title,text,year\r\n"
    '"Rain","It falls,\r\nand ""falls"".",1911\r\n'
    "\r\n"
    "Sun,Up again.,1912\r\n"
    "Fog,,1913\r\n"
)


def test_a_table_gives_the_column_text_with_its_quotes_and_newlines(tmp_path: Path) -> None:
    path = written(tmp_path / "poems.csv", POEMS)
    assert read(path) == ['It falls,\nand "falls".', "Up again.", ""]
    with open(path, encoding="utf-8", newline="") as file:  # the same by Python's own reader
        assert [row["text"].replace("\r", "") for row in csv.DictReader(file)] == read(path)


def test_a_column_is_named_or_numbered(tmp_path: Path) -> None:
    path = written(tmp_path / "poems.csv", POEMS)
    assert read(path, column="title") == ["Rain", "Sun", "Fog"]
    assert read(path, column="1") == ["Rain", "Sun", "Fog"]
    assert read(path, column="3") == ["1911", "1912", "1913"]
    assert read(path, column="3", header="no") == ["year", "1911", "1912", "1913"]
    numbers = written(tmp_path / "numbers.csv", "2,1\na,b\n")
    assert read(numbers, column="1", header="yes") == ["b"]  # the name goes before the number


def test_tabs_separate_where_the_name_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'n\ttext\n1\ta, b\n2\t"c\td"\n3\tthe "e"\n')
    assert read(path) == ["a, b", "c\td", 'the "e"']


@pytest.mark.parametrize(
    ("content", "column", "expected"),
    [
        ("text\nhello\nbye\n", None, ["hello", "bye"]),
        ("A line of a poem.\nAnother line.\n", None, ["A line of a poem.", "Another line."]),
        ("1,first\n2,second\n", "2", ["first", "second"]),  # no number is a name
        ("id,body\n1,first\n", "2", ["first"]),
        ("yes,yes\nno,no\n", "2", ["yes", "no"]),  # columns of one name are none
        ("a title,a body\n1,x y\n", "a body", ["x y"]),  # as a name is asked for
    ],
)
def test_a_header_is_recognised_by_its_words_and_told(
    tmp_path: Path, content: str, column: str | None, expected: list[str]
) -> None:
    path = written(tmp_path / "a.csv", content)
    notices: list[str] = []
    assert read(path, notices, column=column) == expected
    first = "has the column names" if len(expected) < content.count("\n") else "is text"
    assert len(notices) == 1
    assert notices[0].startswith(f"{path}: reading column ")
    assert notices[0].endswith(f"the first row {first}.")


def test_columns_with_long_names_are_told_in_short(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", f"{'a' * 3000},{'b' * 3000}\n1,2\n")
    with pytest.raises(UserError, match="several columns") as caught:
        read(path)
    assert len(str(caught.value).removeprefix(str(path))) < 200
    notices: list[str] = []
    read(path, notices, column="1")
    assert len(notices[0].removeprefix(str(path))) < 200


def test_a_wrong_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path / "poems.csv", POEMS.replace("text", "body"))
    named = r"--column: 'title', 'body', 'year'\.$"
    with pytest.raises(UserError, match=rf"poems\.csv: no column 'verse'.*{named}"):
        read(path, column="verse")
    with pytest.raises(UserError, match=rf"no column '4'.*{named}"):
        read(path, column="4")
    with pytest.raises(UserError, match=rf"several columns.*{named}"):
        read(path)
    with pytest.raises(UserError, match=r"no column 'body'.*: 1 to 3 \(.*no names.*\)\.$"):
        read(path, column="body", header="no")
    with pytest.raises(UserError, match="no column '0'"):
        read(path, column="0")


def test_broken_tables_are_told_with_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "n,text\n1,one\n2\n")
    with pytest.raises(UserError, match=r"a\.csv line 3: .*is 1; expected 2"):
        read(path)
    written(path, 'n,text\n1,"one"\n2,"two" or so\n')
    broken = r"a\.csv line 3: .*quote"
    with pytest.raises(UserError, match=broken):
        read(path)
    written(path, 'n,text\n\n1,"one\n2,two\n')  # the quote ends nowhere
    with pytest.raises(UserError, match=broken):
        read(path)


def test_a_row_with_too_many_cells_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'n,text\n1,"a\nb"\n2,Come, come.\n3,Ah, oh, no.\n')
    with pytest.raises(UserError, match=r"a\.csv line 4: .*is 3; expected 2"):
        read(path)


def test_cells_may_be_longer_than_the_csv_module_expects(tmp_path: Path) -> None:
    cell = "word " * 40_000  # more than its 131,072 characters
    path = written(tmp_path / "a.csv", f'text\n"{cell}"\n')
    assert read(path) == [cell]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_a_record_without_an_end_is_told_before_memory_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(readers, "LONGEST_RECORD", 1000)
    monkeypatch.setattr(sources, "BLOCK", 100)
    begin = 'text\none\n"' if ending == "csv" else '{"text": "one"}\n\n{"text": "'
    path = written(tmp_path / f"a.{ending}", begin + "x y\\n" * 10_000)
    with pytest.raises(UserError, match=rf"a\.{ending} line 3: .*(longer than|larger than)"):
        read(path)


def test_an_empty_table_has_no_documents(tmp_path: Path) -> None:
    for content in ("", "\n\n", "text\n"):
        assert read(written(tmp_path / "a.csv", content)) == []


# JSON.


def test_json_lines_give_the_field_of_each(tmp_path: Path) -> None:
    content = (
        '{"text": "one\\r\\n\\u00e4", "n": 1}\r\n\n  {"n": 2, "text": null}\n{"text": ""}\n"alone"'
    )
    path = written(tmp_path / "a.jsonl", content)
    assert read(path) == ["one\nä", "", "alone"]
    path = written(tmp_path / "a.jsonl", '{"body": "one"}\n{"body": "two", "text": "x"}\n')
    assert read(path, field="body") == ["one", "two"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list_gives_the_field_of_each_record(tmp_path: Path, indent: int | None) -> None:
    records = [{"text": f"one, [{n}] " + "ä" * n, "more": {"a": [n]}} for n in range(50)]
    path = written(tmp_path / "a.json", json.dumps(records, indent=indent))
    assert read(path) == [record["text"] for record in records]
    written(path, "\n".join(json.dumps(record, indent=indent) for record in records))
    assert read(path) == [record["text"] for record in records]
    assert read(written(path, json.dumps(["one", "two"]))) == ["one", "two"]
    assert read(written(path, "[]")) == []
    assert read(written(path, " ")) == []


@pytest.mark.parametrize("broken", ['{"text": "b', '{"text": "b" "n": 1}', "{'text': 'b'}", "]"])
def test_broken_json_lines_are_told_with_the_line(tmp_path: Path, broken: str) -> None:
    path = written(tmp_path / "a.jsonl", f'{{"text": "a"}}\n\n{broken}\n{{"text": "c"}}\n')
    with pytest.raises(UserError, match=r"a\.jsonl line 3: invalid JSON \("):
        read(path)


def test_broken_json_is_told_with_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '[\n{"text": "a"},\n{"text": "b",\n oh}\n]\n')
    with pytest.raises(UserError, match=r"a\.json line 4: invalid JSON"):
        read(path)
    written(path, '[\n{"text": "a"},\n')
    with pytest.raises(UserError, match=r"a\.json: .* list has no end"):
        read(path)
    written(path, "[" * 100_000)
    with pytest.raises(UserError, match=r"a\.json line 1: invalid JSON"):
        read(path)


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ('{"text": "a", "n": 1, "text": "b"}', "line 2: field 'text'"),
        ('{"prompt": "a", "completion": "b", "prompt": "a"}', "line 2: field 'prompt'"),
        (
            '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
            "line 2: message 1: field 'content'",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_record_with_a_repeated_field_is_named(
    tmp_path: Path, ending: str, record: str, where: str
) -> None:
    path = written(tmp_path / f"a.{ending}", f'{{"text": "fine"}}\n{record}\n')
    with pytest.raises(UserError, match=f"{where} occurs more than once"):
        read(path)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_records_without_text_are_told_with_the_fields_there_are(
    tmp_path: Path, ending: str
) -> None:
    path = written(tmp_path / f"a.{ending}", '{"text": "a"}\n{"body": "b", "n": 1}\n')
    where = rf"a\.{ending} line 2: "
    with pytest.raises(UserError, match=where + r"no field 'text'.* 'body', 'n'.*--field"):
        read(path)
    written(path, '{"text": "a"}\n{"text": 5}\n')
    with pytest.raises(UserError, match=where + "field 'text' is a number; expected a string"):
        read(path)
    written(path, '{"text": "a"}\n17\n')
    with pytest.raises(UserError, match=where + "the record is a number; expected a string"):
        read(path)
    written(path, '{"text": "a"}\n{}\n')
    with pytest.raises(UserError, match=where + "no field 'text'; the record has no fields"):
        read(path)


def test_half_a_character_is_told_or_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": "\\ud83d\\ude00 b\\ud800c"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl line 2: .*U\+D800.*--errors replace"):
        read(path)
    assert read(path, errors="replace") == ["a", "😀 b\ufffdc"]


def test_the_name_does_not_decide_where_the_format_is_given(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"text": "a"}\n')
    assert read(path, format="text") == ['{"text": "a"}\n']
    path = written(tmp_path / "a.data", '{"text": "a"}\n{"text": "b"}\n')
    assert read(path, format="jsonl") == ["a", "b"]
    assert read(written(path, "text\tb\nx\ty\n"), format="tsv") == ["x"]


# Packed files.


def test_packed_files_are_read_as_what_is_in_them(tmp_path: Path) -> None:
    for name, opened in (("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)):
        for inner, content, expected in (
            ("a.txt", "ä\r\n" * 1000, ["ä\n" * 1000]),
            ("a.csv", POEMS, ['It falls,\nand "falls".', "Up again.", ""]),
            ("a.jsonl", '{"text": "one"}\n', ["one"]),
        ):
            path = tmp_path / f"{inner}.{name}"
            with opened(path, "wb") as file:
                file.write(content.encode())
            assert read(path) == expected


def test_a_zip_gives_all_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/2.txt", "two")
        archive.writestr("b/", "")
        archive.writestr("b/3.csv", "n,text\n1,three\n")
        archive.writestr("a.txt.gz", gzip.compress(b"one"))
        archive.writestr("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0")
        archive.writestr("__MACOSX/._a.txt", b"\0")
    notices: list[str] = []
    assert read(path, notices) == ["one", "two", "three"]
    assert any("a.zip/picture.png is skipped" in notice for notice in notices)
    assert not any("MACOSX" in notice for notice in notices)


@pytest.mark.parametrize(
    ("ending", "packing"),
    [("tar", ""), ("tar.gz", "gz"), ("tar.xz", "xz"), ("tgz", "gz"), ("txz", "xz")],
)
def test_a_tar_gives_all_its_files_in_their_order(
    tmp_path: Path, ending: str, packing: str
) -> None:
    for name, content in (("2.txt", "two"), ("1.csv", "n,text\n1,one\n"), ("3.png", "\0")):
        written(tmp_path / name, content)
    path = tmp_path / f"a.{ending}"
    with tarfile.open(path, f"w:{packing}") as archive:
        for name in ("2.txt", "1.csv", "3.png"):
            archive.add(tmp_path / name, f"folder/{name}")
    notices: list[str] = []
    assert read(path, notices) == ["two", "one"]
    assert "a.tar/folder/3.png is skipped" in notices[-1]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for text in ("first", "second", "third"):
            archive.writestr("b.txt" if text != "third" else "a.txt", text)
    assert read(path, []) == ["third", "first", "second"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.zip", "a.tar"])
def test_packed_files_that_are_torn_are_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    random_text = random.Random(1).randbytes(50_000).hex().encode()
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", random_text)
    elif name == "a.tar":
        with tarfile.open(path, "w") as archive:
            archive.add(written(tmp_path / "a.txt", random_text))
    else:
        module = {"gz": gzip, "z2": bz2, "xz": lzma}[name[-2:]]
        with module.open(path, "wb") as file:
            file.write(random_text)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[150 if name == "a.tar" else len(whole) // 2] ^= 0xFF  # in a tar, of the checksum
    for content in (whole[: len(whole) // 2], bytes(damaged), b"no archive", whole[:3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\..*{name[-3:]} cannot be (unpacked|read)"):
            read(path)


def test_a_zip_behind_a_password_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "secret")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag that says "encrypted"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked .*password"):
        read(path)


# Files that are not what they should be.


def test_a_binary_file_among_others_is_skipped_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\xff" * 100)
    notices: list[str] = []
    assert list(read_pieces(path, ReaderSettings(), notice=notices.append, skip_binary=True)) == []
    assert notices == [f"{path} is skipped: a JPEG image, not text."]
    with pytest.raises(UserError, match=r"photo\.jpg: a JPEG image, not text"):
        read(path)  # if the user names it
    text = written(tmp_path / "a.txt", "wide".encode("utf-16"))
    [first, last] = read_pieces(text, ReaderSettings("utf-16"), skip_binary=True)
    assert (first.text, last.ends) == ("wide", True)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt cannot be read: No such file"):
        list(read_pieces(tmp_path / "gone.txt", ReaderSettings()))


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let open files be changed")
def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "line\n" * 1_000_000)
    pieces = read_pieces(path, ReaderSettings())
    next(pieces)
    os.truncate(path, 3_000_000)
    with pytest.raises(UserError, match=r"a\.txt cannot be read: it became shorter"):
        list(pieces)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let open files be removed")
def test_a_file_that_is_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "line\n" * 1_000_000)
    pieces = read_pieces(path, ReaderSettings())
    first = next(pieces)
    path.unlink()
    assert first.text + "".join(piece.text for piece in pieces) == "line\n" * 1_000_000


def test_a_file_that_grows_while_it_is_read_adds_up_to_its_first_size(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "line\n" * 1_000_000)
    sizes: list[int] = []
    pieces = read_pieces(path, ReaderSettings(), progress=sizes.append)
    next(pieces)
    with open(path, "a") as file:
        file.write("more\n" * 500_000)
    for _ in pieces:
        pass
    assert sum(sizes) == 5_000_000


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.zip"])
def test_progress_adds_up_to_the_size_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = b"".join(b"%d lines\n" % number for number in range(100_000))
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", content)
            archive.writestr("b.txt", content)
    else:
        pack = {"txt": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[name[-3:]]
        path.write_bytes(pack(content))
    sizes: list[int] = []
    for _ in read_pieces(path, ReaderSettings(), progress=sizes.append):
        pass
    assert sum(sizes) == path.stat().st_size
    assert min(sizes) > 0


def test_pieces_are_of_bounded_size_whatever_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "word " * 1_000_000)
    for lines in (False, True):
        pieces = list(read_pieces(path, ReaderSettings(lines=lines)))
        assert max(len(piece.text) for piece in pieces) <= sources.BLOCK
        assert "".join(piece.text for piece in pieces) == "word " * 1_000_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_slow_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for _ in range(100):
                file.write("ä日".encode()[:3])
                file.write("ä日".encode()[3:])

    thread = threading.Thread(target=write)
    thread.start()
    assert "".join(piece.text for piece in read_pieces(path, ReaderSettings())) == "ä日" * 100
    thread.join()
