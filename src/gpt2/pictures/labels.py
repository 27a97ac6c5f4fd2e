"""Tokens as labels: what is invisible gets a mark, and what cannot be drawn says what it is.

A token is a string of bytes, and may be a part of a character only: it is shown by its bytes, as
⟨E4 B8⟩. A character that no installed font has is shown by its number, as ⟨U+1F600⟩.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

# What stands in a label for characters that nobody would see.
MARKS = {" ": "·", "\n": "↵", "\t": "→"}
LONGEST = 14  # characters of a label


class LabelPart(NamedTuple):
    """Some characters of a token."""

    text: str
    is_name: bool  # the text is not the characters themselves, but says which they are


def pieces(token: bytes, is_drawable: Callable[[str], bool]) -> list[LabelPart]:
    """A token's characters, and the names of those that cannot be shown; neighbours are joined.

    White space stays as it is; see `MARKS`.
    """
    found = []
    for is_name, group in itertools.groupby(
        _characters(token, is_drawable), key=lambda piece: piece.is_name
    ):
        found.append(
            LabelPart((" " if is_name else "").join(piece.text for piece in group), is_name)
        )
    return found


def label(token: bytes, is_drawable: Callable[[str], bool], longest: int = LONGEST) -> str:
    """A token in one line of visible characters, of about `longest` at most."""
    line = ""
    for text, is_name in pieces(token, is_drawable):
        if is_name:
            part = f"⟨{text}⟩"
            if len(line) + len(part) > longest:
                part = f"⟨{text.split()[0]} …⟩"  # half a number would be another one
        else:
            part = "".join(MARKS.get(character, character) for character in text)
        line += part
        if len(line) > longest:
            return line if is_name else line[: longest - 1] + "…"
    return line


def legible(text: str, is_drawable: Callable[[str], bool]) -> str:
    """A line of text, such as the name of a run, with names for what cannot be drawn."""
    parts = pieces(text.encode("utf-8", "surrogatepass"), is_drawable)
    return "".join(f"⟨{part}⟩" if is_name else part for part, is_name in parts)


def _characters(token: bytes, is_drawable: Callable[[str], bool]) -> Iterator[LabelPart]:
    while token:
        try:
            whole, broken, token = token.decode("utf-8"), b"", b""
        except UnicodeDecodeError as error:
            whole = token[: error.start].decode("utf-8")
            broken, token = token[error.start : error.end], token[error.end :]
        for character in whole:
            if character in MARKS or (_is_visible(character) and is_drawable(character)):
                yield LabelPart(character, False)
            else:
                yield LabelPart(f"U+{ord(character):04X}", True)
        if broken:
            yield LabelPart(broken.hex(" ").upper(), True)


def _is_visible(character: str) -> bool:
    return character.isprintable() and not "\ufe00" <= character <= "\ufe0f"  # variation selectors
