"""What the commands share: how they answer, fail, stop and show their progress."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import itertools
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from tqdm import tqdm

from gpt2.checkpoint.folder import ModelFolder
from gpt2.data.readers import ERRORS, FORMATS, HEADERS, NORMALIZATIONS, ReaderSettings
from gpt2.data.sources import total_size
from gpt2.errors import UserError
from gpt2.quiet import quiet
from gpt2.workspace import Workspace

Item = TypeVar("Item")

_HANG_UP, _BREAK = getattr(signal, "SIGHUP", None), getattr(signal, "SIGBREAK", None)
INTERRUPTED = 130  # the exit code that shells give to a program ended by Ctrl+C
# What else asks a program to end: `kill`, and a terminal that is closed.
_ENDINGS = [number for number in (signal.SIGTERM, _HANG_UP, _BREAK) if number]


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0 when it went well, 1 with one sentence when the user must act."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Whatever the system's code page is: texts are UTF-8, and showing one never fails.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    for number in _ENDINGS:
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup SIGHUP is to be ignored
            signal.signal(number, _interrupt)
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        with contextlib.suppress(OSError):  # the terminal may have gone
            print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has left: nobody to tell, nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A path the system refuses for a reason of its own: too long a name, no permission.
        if error.filename is None:
            report_defect()
        print(
            f"{error.filename} cannot be used: {error.strerror}; check the path.", file=sys.stderr
        )
        sys.exit(1)
    except Exception:
        report_defect()
    sys.exit(0)


def _interrupt(*_: object) -> NoReturn:
    """Answer a signal as Python answers Ctrl+C, so that what is half-written is tidied up."""
    raise KeyboardInterrupt


def report_defect() -> NoReturn:
    """Show the exception in hand, which is not the user's doing, and exit with code 1."""
    print(
        "This is a defect of the toolkit and nothing you did wrong. Please report it where you "
        "got the toolkit, with the command you gave and these lines:",
        file=sys.stderr,
    )
    traceback.print_exc()
    sys.exit(1)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds to the help of a flag the default that it has, if it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Shows defaults in its help and answers a wrong call with one sentence and exit code 2."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=HelpFormatter)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def flags_of(settings: type, flags: object) -> dict[str, Any]:
    """Those of the flags that are fields of a dataclass of settings, by name."""
    names = (field.name for field in dataclasses.fields(settings))
    return {name: getattr(flags, name) for name in names if hasattr(flags, name)}


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how files of text are read; see `reading_of`."""
    add = parser.add_argument_group("how the files are read").add_argument
    # fmt: off
    add("--encoding", metavar="NAME", default="utf-8", help="text encoding of the files")
    add("--errors", choices=ERRORS, default="strict", help="what to do about bytes that are not in this encoding: refuse them, or put a mark in their place")
    add("--format", choices=FORMATS, default="auto", help="format of the files (auto: by their names)")
    add("--lines", "--line_by_line", action="store_true", help="take each line of a text for a document; train.py makes an example of each")
    add("--column", metavar="NAME|N", help='column of tables that holds the text, by its name or its number from 1 (default: "text", or the only one)')
    add("--header", choices=HEADERS, default="auto", help="whether the first row of tables names the columns")
    add("--field", metavar="NAME", default="text", help="field of JSON records that holds the text")
    add("--normalize", choices=NORMALIZATIONS, default="none", help="nfc: write each character that has several spellings in its shortest")
    # fmt: on


def reading_of(args: argparse.Namespace) -> ReaderSettings:
    """What the flags of `add_reading_flags` say."""
    return ReaderSettings(**flags_of(ReaderSettings, args))


def not_empty(items: Iterable[Item], sentence: str) -> Iterator[Item]:
    """The same items; if there are none, a sentence in time for nothing to be written.

    Raises:
        UserError: there are none; says the sentence.
    """
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise UserError(sentence)


def named_model(name: str, workspace: Workspace) -> ModelFolder:
    """A model under models/, a run under checkpoint/, or a folder by its path; see `Workspace`.

    Where a model and a run have the same name, it is told which one is taken.

    Raises:
        UserError: there is none.
    """
    folder = workspace.model_folder(name)
    if run_folder := workspace.run_behind_model(name):
        print(
            f"Using the model {shown(folder)}; for the run of the same name give its path, "
            f"{shown(run_folder)}.",
            file=sys.stderr,
        )
    return ModelFolder(folder)


def model_folder(model_name: str, models_dir: str) -> ModelFolder:
    """As `named_model`; after a slash, a name may say which checkpoint is meant: `run1/model-200`.

    Raises:
        UserError: there is none, or it has no checkpoint.
    """
    folder, slash, checkpoint = model_name.rpartition("/")
    place = Workspace.find(models_dir, folder)
    if (
        slash
        and not Path(model_name).is_dir()
        and (place.model_folder_or_none(folder) or Path(folder).is_dir())
    ):
        model = ModelFolder(place.model_folder(folder), checkpoint)
    else:
        model = named_model(model_name, Workspace.find(models_dir, model_name))
    _ = model.checkpoint  # which is looked at before anything else is done
    return model


def check_place(path: Path) -> Path:
    """The path itself, if a file can be written there, as far as can be told beforehand.

    Raises:
        UserError: it cannot.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder for it.")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} cannot be written: there is a folder or a device of that name.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: you may not write into its folder.")
    return path


@contextlib.contextmanager
def byte_bar(files: list[Path]) -> Iterator[Callable[[int], object]]:
    """Show a bar over the bytes of these files; yields what to tell how many have been read."""
    with tqdm(total=total_size(files), unit="B", unit_scale=True) as bar:
        yield bar.update


def show_notice(sentence: str) -> None:
    """Show, beside a bar, what a user may want to know of the files."""
    tqdm.write(sentence, file=sys.stderr)


# What fire says of a wrong call, and what is said instead.
FIRE_ERRORS = {
    r"Could not consume arg: (-.*)": r"there is no flag \1",
    r"Could not consume arg: (.*)": r"\1 is one value too many",
    r"Cannot find key: (.*)": r"there is no command \1",
    r"The function received no value for the required argument: (.*)": r"--\1 is missing",
}
# What fire's help has besides: a note on itself, empty types, and, as if it were a command, what it
# notes on a function for itself.
FIRE_NOISE = (
    r"^INFO: Showing help with[^\n]*\n\n",
    r"\n +Type: Optional\[\](?=\n)",
    r"\n+GROUPS\n.*FIRE_METADATA",
)


def run_fire(*functions: Callable[..., None]) -> NoReturn:
    """Run a function, or one of several by its name, with flags that python-fire reads.

    Flags whose default is a string, and those without one, are strings; the others are values of
    Python as far as they can be.
    """
    import fire

    calls: list[Callable[[], None]] = []

    # Fire finds wrong flags only after it has called a function, so the real call is put off.
    def put_off(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def remember(*arguments: object, **flags: object) -> None:
            calls.append(functools.partial(function, *arguments, **flags))

        parameters = inspect.signature(function).parameters.values()
        texts = (p.name for p in parameters if isinstance(p.default, str) or p.default is p.empty)
        return fire.decorators.SetParseFns(**dict.fromkeys(texts, str))(remember)

    commands = {function.__name__: put_off(function) for function in functions}
    program = Path(sys.argv[0]).name
    # To fire a lone - ends a command; to everybody else it is standard input or output.
    words: list[str] = []
    for word in sys.argv[1:]:
        if word == "-" and words and words[-1].startswith("--"):
            words[-1] += "=-"
        else:
            words.append("--help" if word == "-h" else word)  # and no flag's first letter
    if len(functions) == 1:
        [component] = [function] = commands.values()
        called = program
    else:
        component = commands
        function = commands.get(words[0]) if words else None
        called = f"{program} {words[0]}" if function else program

    def command() -> None:
        if function and (flag := valueless_flag(function, words)):
            refuse(f"{flag} needs a value")
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                fire.Fire(component, command=words, name=program)
        except fire.core.FireExit as exit_:
            if exit_.code and (wrong := re.search("ERROR: (.*)", said.getvalue())):
                for theirs, ours in FIRE_ERRORS.items():
                    if found := re.fullmatch(theirs, wrong[1]):
                        refuse(found.expand(ours))
                refuse(wrong[1])
            shown = said.getvalue()
            for noise in FIRE_NOISE:
                shown = re.sub(noise, "", shown, flags=re.DOTALL)
            print(shown.replace(" GROUP | ", " ").rstrip())
            raise
        for call in calls:
            call()

    def refuse(sentence: str) -> NoReturn:
        print(f"{called}: {sentence}; see {called} --help.", file=sys.stderr)
        sys.exit(2)

    run(command)


def valueless_flag(function: Callable[..., None], words: Sequence[str]) -> str | None:
    """The first flag that stands without its value, which fire would take to be the word True."""
    parameters = inspect.signature(function).parameters
    for word, following in itertools.zip_longest(words, words[1:], fillvalue="--"):
        parameter = parameters.get(word.removeprefix("--").replace("-", "_"))
        valued = parameter is not None and not isinstance(parameter.default, bool)
        if word.startswith("--") and valued and following.startswith("--"):
            return word
    return None


def load_tensorflow() -> None:
    """Load TensorFlow without its start-up notes on compilers and GPUs, which nobody asked for.

    Whoever does want them sets TF_CPP_MIN_LOG_LEVEL, for example to 0. Nor is Keras loaded, which
    is not used here and would, with the packages that it loads in turn, double the time.
    """
    # Instead of Keras TensorFlow then looks for its predecessor, and does without if there is none.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # TensorFlow may lose a KeyboardInterrupt, or make another exception of it, while it traces.
    screen = os.dup(2)  # since standard error is turned aside now and then; see `quiet`
    signal.signal(signal.SIGINT, lambda *_: leave_at_once(screen))
    for number in _ENDINGS:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, signal.SIG_DFL)
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with quiet():  # it writes the notes before it reads that variable
        import tensorflow as tf

        tf.config.list_logical_devices()


def shown(path: Path) -> str:
    """A path as the user would write it: from the current folder, if that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except ValueError:  # on another drive of Windows
        return str(path)


def leave_at_once(screen: int) -> NoReturn:
    """Answer Ctrl+C, on this descriptor, where nothing has to be finished or tidied up."""
    os.write(screen, b"\ninterrupted\n")
    os._exit(INTERRUPTED)


class StopSignal:
    """Ctrl+C and SIGTERM: the first asks the work to end well, the second ends it at once.

    A terminal that is closed asks, too, unless `nohup` has been told not to mind. A thread does
    the listening, since the main one answers signals only between its own steps and one of those
    may be half a minute inside TensorFlow.
    """

    def __init__(self, message: str):
        """Prepare.

        Args:
            message: shown on standard error when asked.
        """
        self._message = message
        self._requested = threading.Event()
        self._inbox, self._outbox = socket.socketpair()
        self._handlers: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether the work should end."""
        return self._requested.is_set()

    def ask(self) -> None:
        """Ask the work to end, as a signal does."""
        self._requested.set()

    def __enter__(self) -> StopSignal:
        self._outbox.setblocking(False)
        signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, _BREAK, _HANG_UP):
            if number and not (number == _HANG_UP and signal.getsignal(number) == signal.SIG_IGN):
                self._handlers[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._outbox.close()  # which ends the listening, too

    def _listen(self) -> None:
        impatient = False
        while signals := self._inbox.recv(16):
            for number in signals:
                # A terminal that goes sends its signal more than once.
                if number not in self._handlers or (number == _HANG_UP and self()):
                    continue
                if impatient:
                    os._exit(INTERRUPTED)
                impatient = number != _HANG_UP
                self.ask()
                with contextlib.suppress(OSError):
                    print(self._message, file=sys.stderr, flush=True)
        self._inbox.close()


class Outlasting:
    """A stream whose writer outlasts its reader: what cannot be written to it is dropped."""

    def __init__(self, stream: TextIO, left: Callable[[], object]):
        """Take a stream of the process, such as standard output.

        Args:
            left: called when nobody reads it any more, as when `head` or the terminal has gone.
        """
        self._stream = stream
        self._left = left

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO, errno.EINVAL):
                # Or what waits in the stream would fail again when the program ends.
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())
                self._left()
