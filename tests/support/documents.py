"""The commands and Python snippets of the documents: found, parsed, and run in small form."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2.commands.flags import Command, Values
from gpt2.commands.main import VERBS
from gpt2.workspace import command_line

ROOT = Path(__file__).resolve().parents[2]
# Written by a tool from the commands themselves.
GENERATED = {ROOT / "docs" / "commands.md"}
SCRIPTS = {f"src/{verb.replace('-', '_')}.py": verb for verb in VERBS} | {
    script: verb
    for verb in VERBS
    for script in command_line(verb).split()[1:]
    if script.endswith(".py")
}

# The largest values with which a command of a document is run.
CAPS = {
    "accumulate_gradients": 2, "batch_size": 2, "beams": 2, "count": 300, "length": 5,
    "max_minutes": 1, "min_length": 2, "n_ctx": 64, "n_embd": 16, "n_head": 2, "n_layer": 1,
    "n_vocab": 400, "nsamples": 2, "patience": 1, "sample_length": 5, "stride": 16,
    "val_batch_count": 1, "val_batch_size": 2, "val_every": 1, "warmup_steps": 1, "window": 32,
}  # fmt: skip
# Whatever the document says.
SET = {"epochs": None, "sample_every": 1000, "wandb": None, "workers": 1}
STEPS = 2  # of each training; one more pair for each call on a page, which may resume


def pages() -> list[Path]:
    """Return the documents for users."""
    found = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted(page for page in found if page not in GENERATED)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of each command in the block, as a shell splits them."""
        if self.language in ("", "sh", "bash", "console"):
            for line in self.text.replace("\\\n", " ").splitlines():
                if words := words_of_command(line):
                    yield words


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document in order."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        content = "".join(line.removeprefix(found[1]) for line in found[3].splitlines(True))
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], content)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command with flags between backquotes in a document."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for found in re.finditer(r"(?<!`)`((?:python|gpt2) [^`]+)`(?!`)", text):
        words = words_of_command(" ".join(found[1].replace(r"\|", "|").split()))
        verb = verb_of(words)
        # With flags: `gpt2 train` alone is the name of a command.
        if verb and any(word.startswith("--") for word in verb[1]):
            yield words


def words_of_command(line: str) -> list[str]:
    """Return the words of a command to check, nothing for a line that is none.

    Of a pipeline, that is its last command; `$ ` before it and what follows `> ` do not count.
    """
    start = r"(?:\$ |.* \| )?"
    pattern = rf" *{start}(?:\.venv/bin/)?((?:python|gpt2|make|pip|mkdir|cp) .*)"
    found = re.fullmatch(pattern, line)
    if not found:
        return []
    words = shlex.split(found[1], comments=True)
    return words[: words.index(">")] if ">" in words else words


def verb_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the verb of a command and the words after it, None for other programs."""
    if words[0] == "gpt2":
        return (words[1], list(words[2:])) if not words[1].startswith("-") else None
    if words[0] == "python" and words[1] in SCRIPTS:
        return SCRIPTS[words[1]], list(words[2:])
    return None


def parse(verb: str, words: Sequence[str]) -> tuple[Command, Values] | None:
    """Parse a command as the command line does; None if it only asks for help.

    Raises:
        UsageError: it is wrong.
    """
    command = VERBS[verb].load()
    rest = list(words)
    if not isinstance(command, Command):
        if not rest or rest == ["--help"]:
            return None
        command = command[rest.pop(0)]
    if "--help" in rest:
        return None
    return command, command.parse(rest, verb)


def shorten(values: Values, last_step: int) -> None:
    """Lower the values that decide how long a command takes."""
    for name, most in CAPS.items():
        given = getattr(values, name, None)
        if isinstance(given, tuple):
            setattr(values, name, tuple(dict.fromkeys(min(one, most) for one in given)))
        elif given is not None:
            setattr(values, name, min(given, most))
    for name, value in SET.items():
        if hasattr(values, name):
            setattr(values, name, value)
    if hasattr(values, "max_steps") and not values.estimate:
        values.max_steps = last_step
    if getattr(values, "nsamples", None) == 0:
        values.nsamples = 1  # 0 stands for no end
    if hasattr(values, "length") and values.length is None:
        values.length = CAPS["length"]


def outputs(values: Values) -> list[Path]:
    """Return the files that a command would write and does not replace."""
    names = [getattr(values, name, None) for name in ("out", "json")]
    if getattr(values, "count", None) and not values.check:
        names.append(values.file)
    return [Path(name) for name in names if isinstance(name, str) and Path(name).is_file()]


def run(command: Command, values: Values, typed: str = "") -> str:
    """Run a command in this process and return what it prints.

    Raises:
        UserError: the command refuses.
    """
    out, keyboard = io.StringIO(), io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8")
    before, sys.stdin = sys.stdin, keyboard
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            command.run(values)
    except SystemExit as ended:
        assert not ended.code, (ended.code, out.getvalue())
    finally:
        sys.stdin = before
    return out.getvalue()


def run_script(words: Sequence[str], last_step: int) -> None:
    """Run a script of examples/projects in this process, its numbers lowered as in `shorten`."""
    caps = CAPS | {"max_steps": last_step}
    flags = list(words)
    for at, word in enumerate(flags[:-1]):
        if (most := caps.get(word.removeprefix("--"))) and word.startswith("--"):
            flags[at + 1] = str(min(int(flags[at + 1]), most))
    if "--max_steps" in flags:
        flags[flags.index("--max_steps") + 1] = str(last_step)
        flags += ["--sample_every", "1000"]
    before, sys.argv, path = sys.argv, flags, list(sys.path)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, f"{shlex.join(words)} failed"
    finally:
        sys.argv, sys.path[:] = before, path


def run_file_command(words: Sequence[str]) -> None:
    """Do what `mkdir -p` and `cp` do."""
    program, *arguments = words
    if program == "mkdir":
        for argument in arguments:
            if argument != "-p":
                Path(argument).mkdir(parents=True, exist_ok=True)
        return
    *patterns, target = arguments
    for pattern in patterns:
        for path in glob.glob(pattern) or [pattern]:
            if not Path(path).is_dir():
                shutil.copy(path, target)


def run_snippet(code: str, name: str) -> dict[str, Any]:
    """Run a Python snippet of a document; it is not `__main__`."""
    namespace: dict[str, Any] = {"__name__": "snippet"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, name, "exec"), namespace)
    return namespace
