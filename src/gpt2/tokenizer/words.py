"""Cutting a text into words; tokens are made inside a word and never reach across two.

    "I'll pay  $20."  ->  ["I", "'ll", " pay", " ", " $", "20", "."]

A word keeps the one space before it, so that the words joined are the text again.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from gpt2.errors import UserError

# GPT-2's pattern (src/encoder.py of openai/gpt-2): the English contractions; then letters, digits,
# or other marks, with at most one space before them; then white space, which leaves its last
# character to the word that follows.
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

# No word goes on from a visible character to white space. A text may be cut there, and each part
# taken by itself, without any word changing.
_SEAM = regex.compile(r"\S(?=\s)")

# The last place of the kind, and the last one of all at which no word goes on: after letters, digits
# or marks that others follow, but not between a letter and what may belong to it (an accent written
# apart), nor inside of <|endoftext|> and its like.
_LAST_SEAM = regex.compile(r"(?r)\S(?=\s)")
_LAST_NARROW_SEAM = regex.compile(
    r"(?r)\p{L}(?=[^\p{L}\p{M}|])|\p{N}(?=[^\p{N}\p{M}|])|[^\s\p{L}\p{N}|](?=[\p{N}])"
)

# Characters taken at a time: the words of a whole book need not be in memory at once.
_PART = 1_000_000


def words(text: str) -> Iterator[list[str]]:
    """Yield the words of `text` in their order, a long list of them at a time."""
    start = 0
    while start < len(text):
        seam = _SEAM.search(text, start + _PART)
        stop = seam.end() if seam else len(text)
        yield _WORD.findall(text[start:stop])
        start = stop


def last_seam(text: str) -> int:
    """Where `text`, whatever follows it, may be cut without any word changing; 0 if nowhere.

    It is the last such place before white space or, if there is none, the last one between letters
    and digits or the like, as for text in Chinese.
    """
    seam = _LAST_SEAM.search(text) or _LAST_NARROW_SEAM.search(text)
    return seam.end() if seam else 0


def check_characters(text: str) -> None:
    """Make sure that every character of `text` has bytes.

    Raises:
        UserError: it holds a lone surrogate, the half of a character that some broken files and
            JSON escapes bring in.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"Character {error.start} of the text, counted from 0, is half a character "
            f"(lone surrogate U+{ord(text[error.start]):04X}) and has no bytes; remove it."
        ) from None
