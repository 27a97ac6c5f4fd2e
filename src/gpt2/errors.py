"""The error type for mistakes of the user, and helpers that put foreign text into messages."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

# Unicode categories that a terminal obeys or that hide text: controls, format characters (such as
# right-to-left overrides), surrogates of undecodable file names, line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class UserError(Exception):
    """Invalid input, or a file or setting that cannot be used.

    Its text is one sentence for the user: where, what is wrong, what to do. The commands print it
    on standard error and exit with code 1; any other exception is a bug and keeps its traceback.
    """

    def __str__(self) -> str:
        """Return the sentence with control characters escaped.

        File names may hold any character, and every message passes through here on its way to a
        terminal.
        """
        return escaped(super().__str__())


def escaped(text: str) -> str:
    r"""Return text in which control characters are written as escapes.

    Example:
        >>> escaped("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character
        for character in text
    )


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN


def visible(words: object) -> str:
    """Return foreign text as one line: white space collapsed, control characters escaped."""
    return escaped(" ".join(str(words).split()))


def in_short(words: object, most: int = 200) -> str:
    """Return foreign text as one line of at most `most` characters and an ellipsis."""
    line = visible(words)
    return line if len(line) <= most else line[:most] + "..."


def quoted(content: object, most: int = 60) -> str:
    """Return a value as Python writes it, shortened to `most` characters and an ellipsis."""
    try:
        return in_short(repr(content), most)
    except ValueError:  # a number with more digits than Python prints
        return f"a {type(content).__name__} with thousands of digits"


def not_finite() -> UserError:
    """Return the error for logits, or what was computed from them, that are NaN or infinite."""
    return UserError(
        "The model's logits are not finite numbers: its weights are corrupted, or training "
        "diverged. Use another checkpoint."
    )


def shown(path: Path) -> str:
    """Return a path for messages: from the current folder if that is shorter, and escaped."""
    try:
        return escaped(min(os.path.relpath(path), str(path), key=len))
    except (ValueError, OSError):  # on another drive of Windows; no current folder
        return escaped(str(path))


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for an operating-system error while writing `path`."""
    return UserError(
        f"{path} cannot be written: {error.strerror or error}. "
        "Check the folder, its permissions and the free disk space."
    )


def cannot_read(path: Path, error: OSError) -> UserError:
    """Return the error for an operating-system error while reading `path`."""
    return UserError(f"{path} cannot be read: {error.strerror or error}.")
