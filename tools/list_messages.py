#!/usr/bin/env python3
"""List every text that a user can see: errors, notices, prints and help, with file and line.

    python tools/list_messages.py | less

For reading them line by line; see the rules in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "gpt2"
SHOWN = {
    "UserError", "UsageError", "KeyboardInterrupt", "StopSignal", "Warned", "Finding", "Command",
    "Verb", "print", "notice", "_notice_once", "_print", "warn", "write", "fail", "setting",
}  # fmt: skip


def main() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in sorted(set(messages(ast.parse(path.read_text(encoding="utf-8"))))):
            print(f"{path.relative_to(PACKAGE)}:{line}: {text}")


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string in a call that shows it, or in what a helper returns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in SHOWN:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            for argument in arguments:
                text = " ".join(_strings(argument)).strip()
                if " " in text:
                    yield argument.lineno, " ".join(text.split())


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _strings(node: ast.AST) -> Iterator[str]:
    """Yield the text of string literals below a node, with braces for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        yield "".join(map(str, parts))
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


if __name__ == "__main__":
    main()
