"""`interactive`: type prompts, read completions."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import files
from gpt2.checks import check_count, setting
from gpt2.commands import exits, inputs, sampling_options
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of, parse_value, suggestion
from gpt2.commands.sampling_options import as_typed, shown_text, stable_text
from gpt2.commands.signals import StopSignal, interruptible_input
from gpt2.commands.streams import OutputError, check_output
from gpt2.commands.terminal import for_terminal, print_banner
from gpt2.errors import UserError, cannot_write, escaped
from gpt2.generation.completions import Completion, in_order
from gpt2.generation.language_model import LanguageModel

PROMPT = "Model prompt >>> "
GREETING = "Type a prompt, or /help for commands. Ctrl+D or /quit exits."
HELP = '''\
Type a prompt and the model continues it. For a prompt of several lines, end a line with \\, or
begin with """ and end with """. Ctrl+C stops a sample.
  /set NAME VALUE   change a setting, for example: /set temperature 0.7
  /settings         show the settings
  /again            generate new samples for the last prompt
  /save FILE        append the last prompt and its samples to a file
  /help             show this text
  /quit             exit, as /exit and Ctrl+D do'''
QUIT = ("/quit", "/exit")
# They decide which model is loaded, so they cannot change while it is in use.
FIXED = (
    "model_name",
    "models_dir",
    "engine",
    "quantize",
    "kv_cache",
    "speculate",
    "draft_text",
    "chat",
    "system",
)


@dataclasses.dataclass(frozen=True)
class ChatOptions:
    """What makes a session a conversation."""

    chat: str = setting(
        "",
        "hold a conversation; TEMPLATE is for example 'Q: {question}\\nA: {answer}' (default: the "
        "template that the model was trained with)",
        metavar="[TEMPLATE]",
        bare="own",
    )
    system: str = setting("", "system message of the conversation")


def check(values: Values) -> None:
    """Check the flags that have another range here than in the other samplers."""
    check_count("--nsamples", values.nsamples, least=1)
    if values.chat and values.nsamples > 1:
        raise UsageError("--chat gives one reply at a time; omit --nsamples")
    if values.system and not values.chat:
        raise UsageError("--system needs --chat")


def run(values: Values) -> None:
    """Load the model and hold the session, unless nobody would see it; see `check_output`."""
    check_output()
    if values.chat:
        from gpt2.commands import chat  # which imports this module

        template = chat.find_template(values.chat, inputs.open_model(values).path)
        chat.ChatSession(values, sampling_options.open_model(values), template).run()
    else:
        Session(values, sampling_options.open_model(values)).run()


COMMAND = Command(
    summary="Type prompts and read completions.",
    details="On a terminal, /help lists the commands of the session.",
    groups={**sampling_options.sampler_options(), "conversation": options_of(ChatOptions)},
    run=run,
    by_fire=True,
    check=check,
)


# What the error handler "surrogateescape" makes of bytes that are not UTF-8.
_UNDECODED = re.compile("[\udc80-\udcff]")


class Session:
    """Reads prompts and prints completions until the input ends."""

    prompt_shown = PROMPT

    def __init__(self, values: Values, model: LanguageModel):
        self.values = values
        self.model = model
        self.generated = 0  # samples so far; their numbers decide their random numbers
        self.prompt = ""
        self.samples: list[str] = []
        # Slash commands and multi-line prompts are for people; a pipe is read as in 2019.
        self.on_terminal = sys.stdin.isatty()
        self.options = {option.flag.removeprefix("--"): option for option in COMMAND.options}
        self.encoding_known = False  # of a pipe
        self.commands: dict[str, Callable[[str], object]] = {
            "/set": self.set,
            "/settings": self.show_settings,
            "/again": self.again,
            "/save": self.save,
            "/help": lambda rest: print(HELP),
        }
        self.with_argument = {"/set", "/save"}

    def run(self) -> None:
        """Answer every prompt and carry out every slash command."""
        if self.on_terminal:
            # Ctrl+C ends a sample or a line; in between there is nothing to end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
            with contextlib.suppress(ImportError):  # Windows has no readline, and needs none
                import readline  # noqa: F401  (arrow keys and history)
            print(GREETING)
        for line in self.lines():
            try:
                if undecoded := _UNDECODED.search(line):
                    raise UserError(
                        f"The line is not UTF-8 text (byte 0x{ord(undecoded[0]) - 0xDC00:02x} at "
                        f"character {undecoded.start()}). Convert the input to UTF-8."
                    )
                if not (self.on_terminal and line.startswith("/")):
                    self.prompt = line
                    self.answer()
                elif not self.obey(line):
                    return
            except (UserError, UsageError) as error:  # the session continues
                print(error, file=sys.stderr)
            except MemoryError:
                print("Out of memory. Use a smaller batch_size or nsamples.", file=sys.stderr)
            except (OSError, OutputError):  # standard output is closed or full
                raise
            except Exception:
                with contextlib.suppress(SystemExit):
                    exits.report_bug()

    def lines(self) -> Iterator[str]:
        """Yield the prompts and slash commands."""
        while True:
            try:
                with interruptible_input() if self.on_terminal else contextlib.nullcontext():
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
        """Return one prompt, which may have several lines on a terminal."""
        if not self.on_terminal:
            return self.read_piped()
        line = input(self.prompt_shown)
        if line.startswith('"""'):
            lines = [line[3:]]
            while not lines[-1].endswith('"""'):
                lines.append(input("... "))
            return "\n".join(lines).removesuffix('"""')
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("... ")
        return line

    def prompt_tokens(self) -> list[int]:
        """Return the tokens that the samples continue."""
        return self.model.encode(self.prompt)

    def read_piped(self) -> str:
        """Return one line of a pipe or a file, which may begin with a byte order mark."""
        print(self.prompt_shown, end="", flush=True)
        if not self.encoding_known:
            self.encoding_known = True
            start = sys.stdin.buffer.peek(4) if hasattr(sys.stdin.buffer, "peek") else b""
            mark, encoding = files.byte_order_mark(start)
            sys.stdin.buffer.read(len(mark))
            errors = "surrogateescape" if encoding == "UTF-8" else "replace"
            sys.stdin.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]
        return input().removesuffix("\r")

    def answer(self) -> None:
        """Print samples that continue the prompt."""
        tokens = self.prompt_tokens()
        self.samples = []
        generated = 0
        began = time.monotonic()
        # Beam search takes the rank of a sample from its number.
        first = 0 if self.values.beams else self.generated
        requests = ((first + n, tokens) for n in range(self.values.nsamples))
        with StopSignal("") as stop:
            completions = sampling_options.generate(self.model, requests, self.values)
            if self.values.nsamples == 1:
                generated = self.stream(completions, stop)
            else:
                for completion in in_order(completions, first, stop):
                    generated += len(completion.tokens)
                    self.samples.append(shown_text(completion, self.values, self.prompt))
                    self.show_start(len(self.samples))
                    print(for_terminal(self.samples[-1]), flush=True)
                    sampling_options.show_notices(completion, self.model, self.values)
        if stop.received not in (None, signal.SIGINT):  # ends the session, as between samples
            signal.raise_signal(stop.received)
        self.show_end()
        if self.on_terminal:
            speed = generated / max(time.monotonic() - began, 1e-9)
            print(f"{generated} tokens, {speed:.1f} per second")
        self.generated += self.values.nsamples

    def show_start(self, number: int) -> None:
        """Print what stands above a sample."""
        print_banner(number)

    def show_end(self) -> None:
        """Print what stands below the samples."""
        print("=" * 80)

    def stream(self, completions: Iterator[Completion], stop: StopSignal) -> int:
        """Print a single sample token by token, and return its number of tokens."""
        self.show_start(1)
        printed = 0
        if self.values.include_prefix:
            print(for_terminal(self.prompt), end="")
        for completion in completions:
            stable = stable_text(completion, self.values)
            print(for_terminal(stable[printed:]), end="", flush=True)
            printed = max(printed, len(stable))
            if stop():
                break
        text = shown_text(completion, self.values)
        print(for_terminal(text[printed:]))  # the rest, if it was interrupted
        self.samples.append(shown_text(completion, self.values, self.prompt))
        sampling_options.show_notices(completion, self.model, self.values)
        return len(completion.tokens)

    def obey(self, line: str) -> bool:
        """Carry out a slash command, and return whether the session continues.

        Raises:
            UserError: there is no such command, or it cannot be carried out.
        """
        name, _, rest = line.strip().partition(" ")
        known = [*self.commands, *QUIT]
        if name not in known:
            raise UserError(
                f"There is no command {name}{suggestion(name, known)}; available: "
                f"{', '.join(known)}."
            )
        if rest.strip() and name not in self.with_argument:
            raise UserError(f"{name} takes no argument. Type {name} alone.")
        if name in QUIT:
            return False
        self.commands[name](rest.strip())
        return True

    def again(self, rest: str) -> None:
        """Generate new samples for the last prompt."""
        if not self.prompt:
            raise UserError("/again: there is no prompt yet. Type one.")
        self.answer()

    def show_settings(self, rest: str) -> None:
        """Print all settings, each as it is typed after /set."""
        for name, option in self.options.items():
            print(name, escaped(as_typed(getattr(self.values, option.name))))

    def set(self, rest: str) -> None:
        """Change a setting, unless the new value is invalid or does not go with the others."""
        name, _, text = rest.partition(" ")
        text = text.strip()
        if not text:
            raise UserError(
                '/set needs a name and a value, for example: /set temperature 0.7. "" is an empty '
                "value."
            )
        settable = [other for other in self.options if other not in FIXED]
        if name not in settable:
            raise UserError(
                f"{name} cannot be set here{suggestion(name, settable)}; available: "
                f"{', '.join(settable)}."
            )
        option = self.options[name]
        if quoted := re.fullmatch(r"\"([^\"]*)\"|'([^']*)'", text):  # as on a command line
            text = quoted[1] or quoted[2] or ""
        changed = Values(**vars(self.values) | {option.name: parse_value(option, text)})
        check(changed)
        sampling_options.generation_settings(
            changed, self.model.hparams.n_vocab, self.model.tokenizer
        )
        self.values = changed

    def save(self, rest: str) -> None:
        """Append the last prompt and its samples to a file."""
        if not rest:
            raise UserError("/save needs a file, for example: /save samples.txt")
        if not self.samples:
            raise UserError("/save: there is no sample yet. Type a prompt.")
        try:
            path = Path(rest).expanduser()
            with open(path, "a", encoding="utf-8") as file:
                for sample in self.samples:
                    file.write(f"{self.prompt}\n{sample}\n{'=' * 20}\n")
        except OSError as error:
            raise cannot_write(path, error) from error
        except (RuntimeError, ValueError) as error:  # no such home, NUL in the name
            raise UserError(f"{rest} cannot be written: {error}. Choose another file.") from error
        print("Saved to", escaped(str(path)))
