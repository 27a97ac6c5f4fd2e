#!/usr/bin/env python3
"""Type the beginning of a text and let a model go on.

python src/interactive_conditional_samples.py --model_name 117M --top_k 40
"""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from command_line import StopSignal, run_fire
from gpt2.checks import check_count
from gpt2.errors import UserError, cannot_write
from gpt2.generation.completions import Completion, in_order
from gpt2.generation.language_model import LanguageModel
from text_flags import TextFlags, note_window, print_banner, with_text_flags

HELP = '''\
Type a text and the model goes on from it. Two ways to type several lines: end a line with \\, or
begin with """ and end with """. Ctrl+C stops a sample, Ctrl+D leaves.
  /set NAME VALUE   change a setting, for example: /set temperature 0.7
  /settings         show the settings
  /again            go on from the last prompt once more
  /save FILE        append the last prompt and its samples to a file
  /help             this text'''
# What is settled when the model is loaded.
FIXED = ("model_name", "models_dir", "engine", "quantize")


@with_text_flags()
def interact_model(flags: TextFlags) -> None:
    """Interactively run the model: type a prompt and it goes on; /help tells more."""
    check_count("nsamples", flags.nsamples, least=1)
    Session(flags, flags.open()).run()


class Session:
    """What is typed and what comes back, until the end of the input."""

    def __init__(self, flags: TextFlags, model: LanguageModel):
        self.flags = flags
        self.model = model
        self.generated = 0  # samples so far: their numbers decide their random numbers
        self.prompt = ""
        self.samples: list[str] = []
        # Slash commands and several lines are for people; a pipe is read as it was in 2019.
        self.typed = sys.stdin.isatty()

    def run(self) -> None:
        """Answer every prompt."""
        if self.typed:
            with contextlib.suppress(ImportError):  # Windows has no readline, and needs none
                import readline  # noqa: F401  (arrow keys and history)
            print("Type /help for what can be done here.")
        for line in self.lines():
            try:
                if self.typed and line.startswith("/"):
                    self.obey(line)
                else:
                    self.prompt = line
                    self.answer()
            except UserError as error:  # this one does not work; the next one may
                print(error, file=sys.stderr)

    def lines(self) -> Iterator[str]:
        """The prompts, and the commands among them."""
        while True:
            try:
                if self.typed:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                prompt = self.read()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                continue
            if prompt:
                yield prompt
            else:
                print("Prompt should not be empty!")

    def read(self) -> str:
        """One prompt, which may have several lines if a person types it."""
        line = input("Model prompt >>> ")
        if not self.typed:
            return line
        if line.startswith('"""'):
            lines = [line[3:]]
            while not lines[-1].endswith('"""'):
                lines.append(input("... "))
            return "\n".join(lines).removesuffix('"""')
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("... ")
        return line

    def answer(self) -> None:
        """Show samples that go on from the prompt."""
        tokens = self.model.encode(self.prompt)
        self.samples = []
        written = 0
        began = time.monotonic()
        with StopSignal("") as stop:
            numbered = [(self.generated + n, tokens) for n in range(self.flags.nsamples)]
            texts = self.flags.write(self.model, numbered)
            if self.flags.nsamples == 1:
                written = self.show_while_written(texts, stop)
            else:
                for text in in_order(texts, self.generated, stop):
                    written += len(text.tokens)
                    note_window(text, self.model)
                    self.samples.append(self.flags.shown_text(text, self.prompt))
                    print_banner(len(self.samples))
                    print(self.samples[-1], flush=True)
        print("=" * 80)
        if self.typed:
            print(f"{written} tokens, {written / (time.monotonic() - began):.1f} per second")
        self.generated += self.flags.nsamples

    def show_while_written(self, texts: Iterator[Completion], stop: StopSignal) -> int:
        """Show a single sample token by token; its number of tokens."""
        print_banner(1)
        shown = 0
        if self.flags.include_prefix:
            print(self.prompt, end="")
        for text in texts:
            note_window(text, self.model)
            settled = self.flags.settled_text(text)
            print(settled[shown:], end="", flush=True)
            shown = max(shown, len(settled))
            if stop():
                break
        print()
        self.samples.append(self.flags.shown_text(text, self.prompt))
        return len(text.tokens)

    def obey(self, line: str) -> None:
        """Carry out what begins with a slash."""
        command, _, rest = line.partition(" ")
        name, _, value = rest.strip().partition(" ")
        if command == "/again" and self.prompt:
            self.answer()
        elif command == "/settings":
            for field in dataclasses.fields(self.flags):
                print(f"{field.name} {getattr(self.flags, field.name)}")
        elif command == "/set" and value:
            self.set(name, value)
        elif command == "/save" and name:
            self.save(Path(rest.strip()).expanduser())
        else:
            print(HELP)

    def set(self, name: str, value: str) -> None:
        """Change a setting, if the new value makes sense."""
        names = {field.name for field in dataclasses.fields(self.flags)} - set(FIXED)
        if name not in names:
            raise UserError(f"{name} cannot be set here; these can: {', '.join(sorted(names))}.")
        before = getattr(self.flags, name)
        default = next(f.default for f in dataclasses.fields(self.flags) if f.name == name)
        setattr(self.flags, name, value if isinstance(default, str) else parsed(value))
        try:
            self.flags.check()
            self.flags.settings(self.model).sampling.check_vocabulary(self.model.hparams.n_vocab)
        except UserError:
            setattr(self.flags, name, before)
            raise

    def save(self, path: Path) -> None:
        """Append the last prompt and its samples to a file."""
        try:
            with open(path, "a", encoding="utf-8") as file:
                for sample in self.samples:
                    file.write(f"{self.prompt}\n{sample}\n{'=' * 20}\n")
        except OSError as error:
            raise cannot_write(path, error) from error
        print("Saved to", path)


def parsed(value: str) -> object:
    """A number, a truth value or a table as fire would read it from a flag."""
    from fire.parser import DefaultParseValue

    return DefaultParseValue(value)


if __name__ == "__main__":
    run_fire(interact_model)
