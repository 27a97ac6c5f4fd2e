"""The one error type for what a user did or has."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something the user did, or a file the user has, that cannot be worked with.

    Its text is one sentence for that user: what happened, where, what to do.
    The commands print it on standard error and exit with code 1; any other
    exception is a bug of ours and keeps its traceback.
    """


def in_short(words: object, most: int = 200) -> str:
    """Words from a file or another library as part of a sentence: one line, visible, not long."""
    line = visible(words)
    return line if len(line) <= most else line[:most] + "..."


def quoted(content: object, most: int = 60) -> str:
    """How Python writes something from a file, as part of a sentence."""
    return in_short(repr(content), most)


def visible(words: object) -> str:
    """The same in one line, without characters that a terminal obeys instead of showing them."""
    line = "".join(c if c.isprintable() else " " for c in str(words))
    return " ".join(line.split())


def cannot_write(path: Path, error: OSError) -> UserError:
    """The sentence for an operating-system error met while writing `path`."""
    return UserError(
        f"{path} cannot be written: {error.strerror or error}; "
        "check the folder, its permissions and the free disk space."
    )
