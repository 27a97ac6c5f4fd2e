"""Errors for the user are one printable sentence, whatever a file is called."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gpt2 import files
from gpt2.errors import UserError, cannot_write, escaped, in_short, quoted, visible

HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "a\nb\rc", "\x9b31m", "\u202egnp.exe", "\u2028", "\udcff"]


@pytest.mark.parametrize("name", HOSTILE)
def test_control_characters_in_a_name_never_reach_the_terminal(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for error in (
        UserError(f"{path} is missing."),
        UserError(f"here: {UserError(name)}"),
        cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ):
        assert str(error).isprintable()
        assert name not in str(error)
    with pytest.raises(UserError) as raised:
        files.read_small_text(path)
    assert str(raised.value).isprintable()


def test_escapes_show_which_character_it_is() -> None:
    assert str(UserError("a\x1b[2Jb\tc\n")) == r"a\x1b[2Jb\tc\n"
    assert escaped("\u202e") == r"\u202e"


@pytest.mark.parametrize("text", ["Grüße", "你好", "a b", "名前\u3000x", "naïve 🙂", "C:\\models"])
def test_names_in_any_language_stay_as_they_are(text: str) -> None:
    assert str(UserError(text)) == escaped(text) == text


def test_foreign_text_becomes_one_short_line() -> None:
    assert visible("a\n\tb\x1b[0m ") == r"a b\x1b[0m"
    assert in_short("x" * 300) == "x" * 200 + "..."
    assert quoted("a\n") == r"'a\n'"
    assert quoted(10**400) == "1" + "0" * 59 + "..."
    assert "thousands of digits" in quoted(10**5000)


def test_a_write_that_fails_names_file_reason_and_what_to_check() -> None:
    error = cannot_write(Path("out.npz"), OSError(errno.ENOSPC, "No space left on device"))
    assert str(error).startswith("out.npz cannot be written: No space left on device.")
    assert "permissions" in str(error)
