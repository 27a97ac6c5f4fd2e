"""The way in: `gpt2 VERB`, `python -m gpt2 VERB`, and the scripts of 2019 that call a verb."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import gpt2
from gpt2.commands import exits
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, suggestion


class Verb(NamedTuple):
    """A verb of `gpt2`; its module, imported only when it is used, holds COMMAND or COMMANDS."""

    module: str
    summary: str

    def load(self) -> Command | Mapping[str, Command]:
        """Return the command, or its subcommands by name."""
        module = importlib.import_module(f"gpt2.commands.{self.module}")
        return module.COMMAND if hasattr(module, "COMMAND") else module.COMMANDS


VERBS = {
    "demo": Verb("demo", "Train a small model on generated stories, in two minutes."),
    "download": Verb("download", "Download released GPT-2 models."),
    "encode": Verb("encode", "Tokenize text files into a dataset."),
    "tokenize": Verb("tokenize", "Show the tokens of a text."),
    "new-model": Verb("new_model", "Create a model with a vocabulary learned from text."),
    "train": Verb("train", "Train a model on your text."),
    "tune": Verb("tune", "Search for the best training settings."),
    "interactive": Verb("interactive", "Type prompts and read completions."),
    "unconditional": Verb("unconditional", "Generate samples without a prompt."),
    "conditional": Verb("conditional", "Generate completions for a file of prompts."),
    "serve": Verb("serve", "Serve a web page and an endpoint in the form of OpenAI's API."),
    "evaluate": Verb("evaluate", "Measure perplexity and diversity, compare models."),
    "convert": Verb("convert", "Convert models from and to other programs' formats."),
    "plot": Verb("plot", "Plot curves, attention and probabilities; write a report."),
    "stories": Verb("stories", "Write short stories to train on, or check stories."),
}


def main() -> NoReturn:
    """Run `gpt2 VERB ...`."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]):
        exits.run(lambda: print("retrain-gpt2", gpt2.__version__), "gpt2")
    if not words or words[0] in ("-h", "--help", "help"):
        exits.run(print_help, "gpt2")
    verb, *rest = words
    if verb not in VERBS:
        exits.run(functools.partial(_refuse, "command", verb, list(VERBS)), "gpt2")
    run_verb(verb, rest, f"gpt2 {verb}")


def run_script(verb: str) -> NoReturn:
    """Run a verb for a script of its own, such as src/train.py."""
    run_verb(verb, sys.argv[1:], Path(sys.argv[0]).name)


def run_verb(verb: str, words: Sequence[str], program: str) -> NoReturn:
    """Run a verb with the words behind it on the command line."""
    exits.run(lambda: _run(VERBS[verb].load(), verb, words, program), program)


def _run(
    command: Command | Mapping[str, Command], verb: str, words: Sequence[str], program: str
) -> None:
    if isinstance(command, Command):
        values = command.parse(words, program)
        gc.freeze()  # imported modules stay, so the collector need not visit them again and again
        command.run(values)
    elif not words or words[0] in ("-h", "--help"):
        _print_subcommands(command, verb, program)
    elif words[0] not in command:
        _refuse("command", words[0], list(command))
    else:
        name, *rest = words
        program = f"{program} {name}"
        exits.run(lambda: _run(command[name], verb, rest, program), program)


def _refuse(what: str, word: str, known: Sequence[str]) -> NoReturn:
    available = f"available: {', '.join(known)}"
    raise UsageError(f"there is no {what} {word!r}{suggestion(word, known)}; {available}")


def print_help() -> None:
    """Print the verbs."""
    print("usage: gpt2 COMMAND [flags]\n\nRetrain GPT-2 on your own text.\n\ncommands:")
    for name, verb in VERBS.items():
        print(f"  {name:15}{verb.summary}")
    print("\ngpt2 COMMAND --help lists the flags of a command; gpt2 --version prints the version.")


def _print_subcommands(commands: Mapping[str, Command], verb: str, program: str) -> None:
    print(f"usage: {program} COMMAND [flags]\n\n{VERBS[verb].summary}\n\ncommands:")
    for name, command in commands.items():
        print(f"  {name:15}{command.summary}")
    print(f"\n{program} COMMAND --help lists the flags of a command.")
