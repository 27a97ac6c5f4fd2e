"""Text encodings, and files that are not text, recognized by their first bytes."""

from __future__ import annotations

import codecs
import re

PROBE = 2**13  # bytes at the start of a file that are examined

# Longer marks first, because those of UTF-32 start with those of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_SAVE_AS_TEXT = "Save it as plain text (UTF-8) first."
_EXTRACT_TEXT = "Extract its text to a plain text file first."
_RENAME = "Give it the file name suffix {}, or unpack it first."
_LEAVE_OUT = "Leave it out of the dataset."

# What a file is and what to do, by a pattern of its first bytes.
_SIGNATURES = [
    (rb"%PDF-\d", "a PDF document", _EXTRACT_TEXT),
    (rb"\{\\rtf\d", "an RTF document", _SAVE_AS_TEXT),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document", _SAVE_AS_TEXT),
    (rb"\x89PNG\r\n\x1a\n", "a PNG image", _LEAVE_OUT),
    (rb"\xff\xd8\xff", "a JPEG image", _LEAVE_OUT),
    (rb"GIF8[79]a", "a GIF image", _LEAVE_OUT),
    (rb"BM.{4}\0\0\0\0", "a BMP image", _LEAVE_OUT),
    (rb"II\*\0|MM\0\*", "a TIFF image", _LEAVE_OUT),
    (rb"RIFF.{4}WEBP", "a WebP image", _LEAVE_OUT),
    (rb"RIFF.{4}WAVE|OggS\0|fLaC\0|ID3[\2-\4]\0", "an audio file", _LEAVE_OUT),
    (rb"\0\0\0.ftyp|RIFF.{4}AVI |\x1aE\xdf\xa3", "a media file", _LEAVE_OUT),
    (rb"\x1f\x8b\x08", "a gzip file", _RENAME.format(".gz")),
    (rb"BZh[1-9]1AY&SY", "a bzip2 file", _RENAME.format(".bz2")),
    (rb"\xfd7zXZ\0", "an xz file", _RENAME.format(".xz")),
    (rb".{257}ustar", "a tar archive", _RENAME.format(".tar")),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x28\xb5\x2f\xfd", "a compressed file", "Unpack it first."),
    (rb"PAR1.{0,60}\0", "a Parquet file", "Convert it to JSON lines (.jsonl) first."),
    (rb"SQLite format 3\0", "an SQLite database", "Export its text as JSON lines (.jsonl) first."),
    (rb"\x7fELF|MZ.{0,80}\0", "a program", _LEAVE_OUT),
    (rb"\x93NUMPY", "a NumPy array", _LEAVE_OUT),
]
_PATTERNS = [(re.compile(start, re.DOTALL), kind, advice) for start, kind, advice in _SIGNATURES]

# ZIP archives that are documents, by the names of members near the start.
_ZIP = b"PK\x03\x04"
_ZIPPED = [
    (b"word/", "a Word document"),
    (b"xl/", "an Excel workbook"),
    (b"ppt/", "a PowerPoint presentation"),
    (b"application/epub+zip", "an EPUB book"),
    (b"application/vnd.oasis.opendocument", "an OpenDocument file"),
]


def binary_kind(block: bytes) -> tuple[str, str] | None:
    """Return what a file is that is known not to be plain text, and what to do; None for others.

    Args:
        block: the start of the file; of ZIP archives, the more the better.

    Example:
        >>> binary_kind(b"%PDF-1.7")
        ('a PDF document', 'Extract its text to a plain text file first.')
    """
    if block.startswith(_ZIP):
        for member, kind in _ZIPPED:
            if member in block:
                return kind, _SAVE_AS_TEXT
        return "a ZIP archive", _RENAME.format(".zip")
    for pattern, kind, advice in _PATTERNS:
        if pattern.match(block):
            return kind, advice
    return None


def is_text_encoding(name: str) -> bool:
    """Return whether an encoding exists and can decode a text block by block."""
    try:
        codecs.getincrementaldecoder(name)("strict").decode("ab".encode(name), final=True)
        return codecs.lookup(name).name not in ("idna", "punycode")  # for host names
    except (LookupError, ValueError, TypeError):  # such as base64, undefined, or a NUL in the name
        return False


def marked_encoding(block: bytes) -> str | None:
    """Return the encoding that a byte order mark of UTF-16 or UTF-32 tells; None without one."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if block.startswith(mark):
            return encoding
    return None


def unmarked_encoding(block: bytes) -> str | None:
    """Return utf-16-le or another wide encoding, if a block without byte order mark looks like it.

    Args:
        block: the start of the file, with NUL bytes in it.

    Example:
        >>> unmarked_encoding("text".encode("utf-16-be"))
        'utf-16-be'
    """
    for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        if len(block) % width and len(block) < PROBE:
            continue
        try:
            text = block[: min(len(block), PROBE) // width * width].decode(encoding, "strict")
        except UnicodeDecodeError:
            continue
        # Read in the wrong byte order, ASCII would be Chinese.
        plain = sum(character < "\u0250" for character in text)
        shown = sum(character.isprintable() or character.isspace() for character in text)
        if 2 * plain >= len(text) and shown >= 0.98 * len(text):
            return encoding
    return None
