"""A copy of the toolkit in its own folder, and its commands called as a user calls them."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

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

# A command hangs, and fails the test, if it does not do anything for this time.
PATIENCE = 60  # seconds

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

    def __init__(self, process: subprocess.Popen, typed: str):
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
        deadline, used = time.monotonic() + PATIENCE, 0.0
        while not shown():
            assert self.process.poll() is None, (self.out, self.err)
            if time.monotonic() > deadline:
                deadline, before = time.monotonic() + PATIENCE, used
                used = processor_time(self.process)
                assert used > before + 1, (self.out, self.err)
            time.sleep(0.01)

    def send_when(self, signal: int, shown: Callable[[], bool]) -> None:
        """Send a signal as soon as a condition holds."""
        self.wait_until(shown)
        self.process.send_signal(signal)

    def finish(self) -> Done:
        """Wait for the command to exit."""
        code = wait_for(self.process)
        for thread in self._threads:
            thread.join()
        return Done(code, self.out, self.err)


def wait_for(process: subprocess.Popen) -> int:
    """Return the exit code of a process when it ends, unless it hangs; see `PATIENCE`."""
    used = 0.0
    while True:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # on a busy machine it may need longer
            before, used = used, processor_time(process)
            if used < before + 1:
                raise


def processor_time(process: subprocess.Popen) -> float:
    """Return the processor time of a running process in seconds; 0 where that is unknown."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _collect(stream: IO[bytes], parts: list[bytes]) -> None:
    with stream:
        while part := stream.read1(1 << 16):
            parts.append(part)


def _text(parts: list[bytes]) -> str:
    return b"".join(parts).decode("utf-8").replace(os.linesep, "\n")


# Runs command lines, given as lists of words, one after the other in one process. Each has its own
# standard streams and exit code; they share the modules that have been imported.
_ALL_IN_ONE = """
import contextlib, io, json, os, runpy, sys
typed, lines = json.loads(sys.argv[1])
results = []
for script, *words in lines:
    module = words.pop(0) if script == "-m" else None
    sys.argv, sys.path[0] = [module or script, *words], os.path.dirname(script)
    sys.stdin = io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8")
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if module:
                runpy.run_module(module, run_name="__main__")
            else:
                runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
    results.append((code, out.getvalue(), err.getvalue()))
json.dump(results, sys.__stdout__)
"""


class Toolkit:
    """The sources and download_model.py, as in a clone of the repository."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(
            REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(REPOSITORY / "download_model.py", root)

    def start(self, line: str, folder: str = ".", typed: str = "", **popen: object) -> Running:
        """Start a command line such as `PYTHONPATH=src python src/train.py --dataset text.npz`.

        Args:
            folder: current folder, relative to the root.
            typed: standard input.
        """
        process = self.start_with(
            line,
            folder,
            stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **popen,
        )
        return Running(process, typed)

    def start_with(self, line: str, folder: str = ".", **popen: object) -> subprocess.Popen:
        """Start a command line, with more arguments for `subprocess.Popen`."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "COLUMNS")
        }
        words = shlex.split(line)
        while words[0] != "python":
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        words[0] = sys.executable
        return subprocess.Popen(words, cwd=self.root / folder, env=environment, **popen)

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
        program = shlex.join(["-c", _ALL_IN_ONE, json.dumps([typed, commands])])
        done = self.run(f"{settings}python {program}")
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
