"""Files that are not text are named for what they are, and wide encodings are recognized."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from gpt2.data.readers import ReaderSettings, read_pieces
from gpt2.errors import UserError


def read(path: Path, **reading: object) -> str:
    return "".join(piece.text for piece in read_pieces(path, ReaderSettings(**reading)))


def zipped(*names: str) -> bytes:
    """A ZIP archive with files of these names, compressed as Office does it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "<xml/>" * 100)
    return buffer.getvalue()


def open_document() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
    return buffer.getvalue()


OFFICE = ("[Content_Types].xml", "_rels/.rels")
FILES = {
    "report.docx": (zipped(*OFFICE, "word/document.xml"), "a Word document"),
    "word.txt": (zipped(*OFFICE, "word/document.xml"), "a Word document"),
    "table.xlsx": (zipped(*OFFICE, "xl/workbook.xml"), "an Excel workbook"),
    "talk.pptx": (zipped(*OFFICE, "ppt/presentation.xml"), "a PowerPoint presentation"),
    "text.odt": (open_document(), "an OpenDocument file"),
    "archive.data": (zipped("a.txt"), "a ZIP archive"),
    "old.doc": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        "an old Microsoft Office document",
    ),
    "paper.pdf": (b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n", "a PDF document"),
    "letter.rtf": (rb"{\rtf1\ansi Dear all,}", "an RTF document"),
    "a.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
    "a.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a JPEG image"),
    "a.gif": (b"GIF89a\1\0\1\0", "a GIF image"),
    "a.webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP image"),
    "a.wav": (b"RIFF\x10\0\0\0WAVEfmt ", "an audio file"),
    "a.mp4": (b"\0\0\0\x18ftypmp42", "a media file"),
    "packed": (gzip.compress(b"text"), "a gzip file"),
    "table.parquet": (b"PAR1\x15\x04\0\0", "a Parquet file"),
    "notes.sqlite": (b"SQLite format 3\0\x10\0", "an SQLite database"),
    "data.bin": (bytes(range(256)), "a binary file"),
    "nul.csv": (b"text\na\0b\n", "a binary file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_text_is_named(tmp_path: Path, name: str) -> None:
    content, kind = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: {kind}")
    assert "not text. " in sentence
    assert sentence.endswith(".")
    assert "cp1252" not in sentence
    for options in ({"format": "jsonl"}, {"encoding": "cp1252"}, {"errors": "replace"}):
        with pytest.raises(UserError, match=kind):
            read(path, **options)
    notices: list[str] = []
    found = read_pieces(path, ReaderSettings(), notice=notices.append, skip_binary=True)
    assert list(found) == []
    assert len(notices) == 1
    assert notices[0].startswith(f"{path} is skipped: {kind}")


def test_text_that_mentions_a_signature_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("PK is a gene", "%PDF", "BM is a bank", "RIFF raff", "MZ", "PAR1", "Rar!", "II*"):
        path.write_text(text)
        assert read(path) == text


def test_nul_bytes_are_kept_where_the_format_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\0b")
    with pytest.raises(UserError, match=r"a\.txt: .*NUL.*--format text"):
        read(path)
    assert read(path, format="text") == "a\0b"


WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", ["Schöne\nText", "日本語の文章", "1", "x" * 20_000])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(f"\ufeff{text}".replace("\n", "\r\n").encode(encoding))
    assert read(path) == text
    assert read(path, encoding="UTF8") == text
    pieces = read_pieces(path, ReaderSettings(), skip_binary=True)
    assert "".join(piece.text for piece in pieces) == text
    table = tmp_path / "a.csv"
    table.write_bytes("\ufeffid;text\r\n1;ä\r\n".encode(encoding))
    assert read(table) == "ä"


def test_another_encoding_that_is_given_wins_over_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfea")
    assert read(path, encoding="latin-1") == "ÿþa"


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", ["Some text.", "Schöne Grüße, 日本", "x\n" * 20_000])
def test_wide_text_without_a_mark_is_named_with_the_flag(
    tmp_path: Path, encoding: str, text: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=rf"a\.txt: .*--encoding {encoding}"):
        read(path)
    assert read(path, encoding=encoding) == text
    notices: list[str] = []
    assert not list(read_pieces(path, ReaderSettings(), notice=notices.append, skip_binary=True))
    assert f"a.txt is skipped: probably {encoding} text" in notices[0]


@pytest.mark.parametrize(
    "encoding",
    [
        *("undefined", "idna", "punycode", "base64", "hex", "rot13", "zlib", "uu", "bz2", "quopri"),
        *("", " ", "utf-8\0", "\udcff", "x" * 1000, "../../x", "klingon"),
    ],
)
def test_what_is_not_a_text_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(UserError, match=r"^Unknown text encoding .*utf-8") as caught:
        ReaderSettings(encoding)
    assert len(str(caught.value)) < 200


def test_names_that_are_not_utf8_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / "b\udcff.csv"
    try:
        path.write_text("n;text\n1;a\n")
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    notices: list[str] = []
    for piece in read_pieces(path, ReaderSettings(), notice=notices.append):
        assert "b\\udcff.csv" in piece.source.encode("utf-8").decode()
    assert "b\\udcff.csv" in notices[0]
    with pytest.raises(UserError, match=r"b\\udcff\.csv: no column") as caught:
        list(read_pieces(path, ReaderSettings(column="x")))
    str(caught.value).encode("utf-8")
    path.write_bytes(b"%PDF-1.4")
    with pytest.raises(UserError, match=r"b\\udcff\.csv: a PDF"):
        list(read_pieces(path, ReaderSettings()))
    path.unlink()
    with pytest.raises(UserError, match=r"b\\udcff\.csv cannot be read"):
        list(read_pieces(path, ReaderSettings()))
