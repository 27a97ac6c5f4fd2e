"""A copy of the toolkit in its own folder, and its commands called as a user calls them."""

from __future__ import annotations

import atexit
import compileall
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from tests.support import fork_server, waiting

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "model.ckpt.meta",
    "vocab.bpe",
)
DATA, INDEX = ".data-00000-of-00001", ".index"

SIZES = "--n_vocab 300 --n_ctx 32 --n_embd 16 --n_head 2 --n_layer 1"
# Fast steps, so that a signal arrives between two of them.
TRAIN = "python src/train.py --dataset text.npz --sample_every 20 --save_every 7"

# Progress bars of tqdm end in times and a speed, such as [00:01<00:00, 3.40MB/s].
PROGRESS = re.compile(r"\[\d\d:\d\d[<,].*\]$")


class Done(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """The lines on standard error that are not progress bars."""
        lines = (line.strip() for line in re.split(r"[\r\n]+", self.err))
        return [line for line in lines if line and not PROGRESS.search(line)]

    def says(self, code: int, sentence: str) -> None:
        """Assert the exit code, and one line on standard error that matches a pattern."""
        assert self.code == code, self
        assert len(self.sentences) == 1, self
        assert re.search(sentence, self.sentences[0]), self

    def succeeds(self) -> Done:
        """Assert exit code 0 and nothing but progress bars on standard error."""
        assert (self.code, self.sentences) == (0, []), self
        return self


class Running:
    """A running command, killed at the end of a `with` block."""

    def __init__(self, process: subprocess.Popen | fork_server.Process, typed: str):
        self.process = process
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._threads = [
            threading.Thread(target=_collect, args=pair, daemon=True)
            for pair in ((process.stdout, self._out), (process.stderr, self._err))
        ]
        for thread in self._threads:
            thread.start()
        if process.stdin:
            process.stdin.write(typed.encode())
            process.stdin.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def out(self) -> str:
        """The standard output so far."""
        return _text(self._out)

    @property
    def err(self) -> str:
        """The standard error so far."""
        return _text(self._err)

    def wait_until(self, shown: Callable[[], bool]) -> None:
        """Wait until a condition holds."""

        def output() -> tuple[str, str]:
            return self.out, self.err

        def ended_or_shown() -> bool:
            return shown() or self.process.poll() is not None

        waiting.wait_until(ended_or_shown, self.process.pid, output)
        assert shown(), output()

    def send_when(self, signal: int, shown: Callable[[], bool]) -> None:
        """Send a signal as soon as a condition holds."""
        self.wait_until(shown)
        self.process.send_signal(signal)

    def finish(self) -> Done:
        """Wait for the command to exit."""
        code = waiting.wait_for(self.process, lambda: (self.out, self.err))
        for thread in self._threads:
            thread.join()
        return Done(code, self.out, self.err)


def _collect(stream: IO[bytes], parts: list[bytes]) -> None:
    with stream:
        while part := stream.read1(1 << 16):
            parts.append(part)


@functools.cache
def _compiled_sources() -> Path:
    """Return a folder with the sources and their bytecode, for copies that start sooner."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    sources = folder / "src"
    shutil.copytree(REPOSITORY / "src", sources, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(sources, quiet=2)
    return sources


def _text(parts: list[bytes]) -> str:
    return b"".join(parts).decode("utf-8").replace(os.linesep, "\n")


class Toolkit:
    """The sources and download_model.py, as in a clone of the repository."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(_compiled_sources(), root / "src")
        shutil.copy(REPOSITORY / "download_model.py", root)

    def start(self, line: str, folder: str = ".", typed: str = "", **popen: object) -> Running:
        """Start a command line such as `PYTHONPATH=src python src/train.py --dataset text.npz`.

        A script without variables before it starts in a fork; see `fork_server`.

        Args:
            folder: current folder, relative to the root.
            typed: standard input.
            popen: more arguments for `subprocess.Popen`.
        """
        words, environment = self._parse(line)
        stdin = subprocess.PIPE if typed else subprocess.DEVNULL
        is_script = line.startswith("python ") and words[0].endswith(".py")
        if fork_server.AVAILABLE and is_script and not popen:
            fork = fork_server.Process(words, self.root / folder, environment, stdin)
            return Running(fork, typed)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return Running(self.start_with(line, folder, stdin=stdin, **pipes, **popen), typed)

    def start_with(self, line: str, folder: str = ".", **popen: object) -> subprocess.Popen:
        """Start a command line in a new interpreter, with arguments for `subprocess.Popen`."""
        words, environment = self._parse(line)
        words = [sys.executable, *words]
        return subprocess.Popen(words, cwd=self.root / folder, env=environment, **popen)

    def _parse(self, line: str) -> tuple[list[str], dict[str, str]]:
        """Return the words after `python`, and the environment."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "COLUMNS")
        }
        words = shlex.split(line)
        while words[0] != "python":
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        return words[1:], environment

    def run(self, line: str, folder: str = ".", typed: str = "", **popen: object) -> Done:
        """Run a command; see `start`."""
        with self.start(line, folder, typed, **popen) as running:
            return running.finish()

    def run_all(self, *lines: str, **options: object) -> list[Done]:
        """Run independent commands, two at a time; see `start`."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(functools.partial(self.run, **options), lines))

    def run_in_one_process(self, *lines: str, typed: str = "") -> list[Done]:
        """Run commands one after the other in one process, which saves starting Python.

        Args:
            lines: as for `start`, all with the same variables before `python`; a script, or -m
                and a module.
            typed: standard input of each.
        """
        settings, _, _ = lines[0].partition("python ")
        commands = [shlex.split(line.removeprefix(f"{settings}python ")) for line in lines]
        script = Path(__file__).with_name("all_in_one.py")
        words = shlex.join([str(script), json.dumps([typed, commands])])
        done = self.run(f"{settings}python {words}")
        assert (done.code, done.err) == (0, ""), done
        return [Done(*parts) for parts in json.loads(done.out)]

    def contents(self, folder: str = ".") -> dict[str, bytes | None]:
        """Return the content of every file below, without sources, TensorBoard files and locks."""
        place = self.root / folder
        return {
            path.relative_to(place).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(place.rglob("*"))
            if (self.root / "src") not in path.parents
            and "tfevents" not in path.name
            and path.name != "lock"
        }


class Home(NamedTuple):
    """A toolkit with a model and an encoded text."""

    toolkit: Toolkit
    new_model: Done
    encode: Done


class Story(NamedTuple):
    """A training that was stopped and resumed, and its files after each call."""

    toolkit: Toolkit
    interrupted: Done  # by Ctrl+C
    after_interrupt: dict[str, bytes | None]
    terminated: Done  # resumed, then ended by SIGTERM
    after_terminate: dict[str, bytes | None]
    left: Done  # resumed, then ended by a second Ctrl+C
    after_leaving: dict[str, bytes | None]
