"""Cutting a text into words; tokens are made inside a word and never reach across two.

    "I'll pay  $20."  ->  ["I", "'ll", " pay", " ", " $", "20", "."]

A word keeps the one space before it, so that the words joined are the text again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import regex

from gpt2.errors import UserError

# GPT-2's pattern (src/encoder.py of openai/gpt-2): the English contractions; then letters, digits,
# or other marks, with at most one space before them; then white space, which leaves its last
# character to the word that follows.
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

# The last place before white space, and the last one of all, at which no word goes on: after
# letters, digits or marks that others follow, but not between a letter and what may belong to it
# (an accent written apart), nor inside of <|endoftext|> and its like.
_LAST_SEAM = regex.compile(r"(?r)\S(?=\s)")
_LAST_NARROW_SEAM = regex.compile(
    r"(?r)(?:\p{L}(?=[^\p{L}\p{M}|])|\p{N}(?=[^\p{N}\p{M}|])|[^\s\p{L}\p{N}|](?=[\p{N}]))"
    r"(?<!<\|[\w-]{0,63})"
)

# Characters taken at a time. The words of a whole book need not be in memory at once, and the
# slower pattern is for no more of a text than this around each rare character.
_PART = 2**14


def words(text: str) -> Iterator[list[str]]:
    """Yield the words of `text` in their order, a long list of them at a time."""
    seams, fast_word = _fast_patterns()
    start = 0
    while start < len(text):
        seam = seams.search(text, start + _PART)
        stop = seam.end() if seam else len(text)
        part = text[start:stop]
        yield (fast_word if _is_basic(part) else _WORD).findall(part)
        start = stop


def last_seam(text: str) -> int:
    """Where `text`, whatever follows it, may be cut without any word changing; 0 if nowhere.

    It is the last such place before white space or, if there is none, the last one between letters
    and digits or the like, as for text in Chinese.
    """
    seam = _LAST_SEAM.search(text) or _LAST_NARROW_SEAM.search(text)
    return seam.end() if seam else 0


@functools.cache
def _fast_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Where a text may be cut, and GPT-2's pattern for texts of the characters below U+10000.

    The standard library's `re` knows no \\p{L}, but is more than twice as fast as `regex` when it
    is told each of the letters; those up to U+FFFF it looks up in a table.
    """
    basic = "".join(map(chr, range(0x10000)))

    def members(kind: str) -> str:
        return "".join(f"{run[0][0]}-{run[0][-1]}" for run in regex.finditer(kind + "+", basic))

    letter, number, space = members(r"\p{L}"), members(r"\p{N}"), members(r"\s")
    rare = "\U00010000-\U0010ffff"  # letters, numbers and marks
    # No word goes on from a letter or a number to something else, or from anything to white space.
    # A text may be cut there, and each part taken by itself, without any word changing.
    seam = (
        rf"[{letter}](?=[^{letter}{rare}])|[{number}](?=[^{number}{rare}])|[^{space}](?=[{space}])"
    )
    word = (
        rf"'(?:[stmd]|re|ve|ll)| ?[{letter}]+| ?[{number}]+| ?[^{space}{letter}{number}]+"
        rf"|[{space}]+(?![^{space}])|[{space}]+"
    )
    return re.compile(seam), re.compile(word)


def _is_basic(text: str) -> bool:
    # In UTF-16 just the characters from U+10000 on take four bytes.
    return text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


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
