"""docs/troubleshooting.md: each message it explains is one that the code has."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from gpt2.commands.flags import Command
from gpt2.commands.main import VERBS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TABLES = PAGE.split("<!-- messages -->")[1].split("<!-- /messages -->")[0]
MESSAGES = re.findall(r"^\| `([^`]+)` \|", TABLES, re.MULTILINE)


@pytest.fixture(scope="module")
def messages_of_the_code() -> list[str]:
    """Every text of the package that is shown to users, with braces for what is filled in."""
    path = ROOT / "tools" / "list_messages.py"
    spec = importlib.util.spec_from_file_location("list_messages", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = []
    for source in sorted(tool.PACKAGE.rglob("*.py")):
        tree = ast.parse(source.read_text(encoding="utf-8"))
        # Also texts that a helper returns or a constant holds.
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                found.append(" ".join("".join(tool._strings(node)).split()))
    return found


def matches(shown: str, text: str) -> bool:
    """Return whether a message with `...` for what is filled in is (part of) a text of the code.

    Example:
        >>> matches("no model '...' in", "There is no model {} in {}")
        True
    """
    parts = [part.strip(" '") for part in shown.split("...")]
    return re.search(".*".join(map(re.escape, filter(None, parts))), text) is not None


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_has_the_message(message: str, messages_of_the_code: list[str]) -> None:
    assert any(matches(message, text) for text in messages_of_the_code)


def test_a_message_that_the_code_does_not_have_is_found(messages_of_the_code: list[str]) -> None:
    for message in (
        "There is no such model ...",
        "is resumed with the old",
        "... tokens are not there",
    ):
        assert not any(matches(message, text) for text in messages_of_the_code)


def test_every_room_of_a_user_has_messages() -> None:
    assert len(MESSAGES) >= 30
    assert len(set(MESSAGES)) == len(MESSAGES)


def test_the_flags_that_the_page_names_exist() -> None:
    known = set()
    for verb in VERBS.values():
        loaded = verb.load()
        for command in [loaded] if isinstance(loaded, Command) else loaded.values():
            known |= {name for option in command.options for name in option.names}
    assert set(re.findall(r"--[a-z]\w+", PAGE)) - known - {"--help"} == set()
