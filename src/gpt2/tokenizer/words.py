"""Split text into words (pre-tokenization); no token spans two words.

    "I'll pay  $20."  ->  ["I", "'ll", " pay", " ", " $", "20", "."]

A word keeps one space before it, so the concatenated words are the text again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import regex

from gpt2.errors import UserError, quoted

# GPT-2's pattern (src/encoder.py of openai/gpt-2): English contractions; then letters, digits, or
# punctuation, with at most one space before them; then white space, which leaves its last character
# to the next word.
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

# Words end between a letter or number and another kind of character, and before white space.
# Cutting the text there changes no word. Characters from U+10000 on may be of any kind.
_SEAM = regex.compile(
    r"\p{L}(?=[^\p{L}\U00010000-\U0010ffff])|\p{N}(?=[^\p{N}\U00010000-\U0010ffff])|\S(?=\s)"
)

# The last word boundary before white space, and the last one between letters, digits and
# punctuation. The latter is neither before a combining mark (a decomposed accent) nor inside a
# special token such as <|endoftext|>.
_LAST_SEAM = regex.compile(r"(?r)\S(?=\s)")
_LAST_NARROW_SEAM = regex.compile(
    r"(?r)(?:\p{L}(?=[^\p{L}\p{M}|])|\p{N}(?=[^\p{N}\p{M}|])|[^\s\p{L}\p{N}|](?=[\p{N}]))"
    r"(?<!<\|[\w-]{0,63})"
)

# Characters processed at a time. It bounds the words in memory, and the stretch of text for which a
# rare character demands the slower pattern.
_PART = 2**14


def words(text: str) -> Iterator[list[str]]:
    """Yield the words of `text` in order, in long lists."""
    start = 0
    while start < len(text):
        seam = _SEAM.search(text, start + _PART)
        stop = seam.end() if seam else len(text)
        part = text[start:stop]
        yield _pattern(part).findall(part)
        start = stop


def last_seam(text: str) -> int:
    """Return the last offset where cutting `text` changes no word; 0 if there is no such offset.

    The text that follows does not matter. The offset is before white space if possible, otherwise
    between letters, digits and punctuation, as in Chinese text.
    """
    seam = _LAST_SEAM.search(text) or _LAST_NARROW_SEAM.search(text)
    return seam.end() if seam else 0


def _pattern(text: str) -> re.Pattern[str] | regex.Pattern[str]:
    """Return the fastest form of GPT-2's pattern for the characters of `text`."""
    if text.isascii():
        return _fast_word(0x80)
    # Only characters from U+10000 on take four bytes in UTF-16.
    basic = len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)
    return _fast_word(0x10000) if basic else _WORD


@functools.cache
def _fast_word(end: int) -> re.Pattern[str]:
    """Return GPT-2's pattern for characters below `end`, at most U+10000.

    The standard library's `re` has no \\p{L}, but is more than twice as fast as `regex` when the
    letters are listed; it looks up those below U+10000 in a table. The pattern for ASCII is no
    faster, but takes no time to make.
    """
    basic = "".join(map(chr, range(end)))

    def members(kind: str) -> str:
        return "".join(f"{run[0][0]}-{run[0][-1]}" for run in regex.finditer(kind + "+", basic))

    letter, number, space = members(r"\p{L}"), members(r"\p{N}"), members(r"\s")
    # `re` skips an alternative at once if its first character does not fit, which " ?" hides.
    other = rf"[^{space}{letter}{number}]"
    word = (
        rf"[{letter}]+| [{letter}]+|'(?:[stmd]|re|ve|ll)|{other}+|[{number}]+| {other}+"
        rf"| [{number}]+|[{space}]+(?![^{space}])|[{space}]+"
    )
    return re.compile(word)


def check_characters(text: str) -> None:
    """Check that `text` can be encoded as UTF-8.

    Raises:
        UserError: it contains a lone surrogate, as broken files and JSON escapes may produce, or
            is not a string.
    """
    if not isinstance(text, str):
        raise UserError(f"text must be a string, not {quoted(text)}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"Character {error.start} of the text (counted from 0) is a lone surrogate "
            f"(U+{ord(text[error.start]):04X}), which UTF-8 cannot encode. Remove it."
        ) from None
