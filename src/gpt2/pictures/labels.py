"""Readable labels of tokens.

White space is shown by a visible symbol. A token may be a part of a character: it is shown by its
bytes, as ⟨E4 B8⟩. A character that no installed font has is shown by its code point, as ⟨U+1F600⟩.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Symbols for white space in labels.
MARKS = {" ": "·", "\n": "↵", "\t": "→"}
LONGEST = 14  # characters of a label


class LabelPart(NamedTuple):
    """A part of a token: characters, or the bytes or code points of others.

    Attributes:
        text: the characters, or their names: `U+1F600`, or bytes such as `E4 B8`.
        is_name: whether the text is names.
    """

    text: str
    is_name: bool


def pieces(token: bytes, is_drawable: Callable[[str], bool]) -> list[LabelPart]:
    r"""Return the parts of a token: characters that can be drawn, and names of the others.

    White space is kept.

    Args:
        token: its bytes.
        is_drawable: whether a font has a character.

    Example:
        >>> pieces(b"ab\xe4\xb8", str.isprintable)
        [LabelPart(text='ab', is_name=False), LabelPart(text='E4 B8', is_name=True)]
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
    r"""Return a token as one line of visible characters.

    Args:
        token: its bytes.
        is_drawable: whether a font has a character.
        longest: characters beyond which it is shortened.

    Example:
        >>> label(b" word\n", str.isprintable)
        '·word↵'
    """
    line = ""
    for text, is_name in pieces(token, is_drawable):
        if is_name:
            part = f"⟨{text}⟩"
            if len(line) + len(part) > longest:
                part = f"⟨{text.split()[0]} …⟩"  # a part of a number would be misread
        else:
            part = "".join(MARKS.get(character, character) for character in text)
        line += part
        if len(line) > longest:
            return line if is_name else line[: longest - 1] + "…"
    return line


def legible(text: str, is_drawable: Callable[[str], bool]) -> str:
    """Return text, such as the name of a run, with ⟨names⟩ of characters that cannot be drawn."""
    parts = pieces(text.encode("utf-8", "surrogatepass"), is_drawable)
    return "".join(f"⟨{part}⟩" if is_name else part for part, is_name in parts)


def _characters(token: bytes, is_drawable: Callable[[str], bool]) -> Iterator[LabelPart]:
    """Yield the characters of a token, and sequences of bytes that are not UTF-8."""
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
