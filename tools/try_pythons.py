#!/usr/bin/env python3
"""Run the README's flow and the tests with other versions of Python and TensorFlow.

    python tools/try_pythons.py python3.10,tensorflow==2.16.1 python3.13 --docs README.md

Each argument is an interpreter and the versions to hold pip to. It gets an environment of its own
and a fresh clone of the last commit, both in `--folder`, where a repeated call finds the
environment again. The result goes into the README's table of what was tried where.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

from report import table, write_section

SHOW = "import numpy, tensorflow; print(tensorflow.__version__, numpy.__version__)"
SIZE = ("--n_vocab", "512", "--n_ctx", "64", "--n_embd", "32", "--n_head", "2", "--n_layer", "2")
# The 2019 flow on generated stories; the training is stopped by Ctrl+C, then resumed.
BEFORE = (
    ("src/stories.py", "stories.txt", "--count", "2000", "--seed", "1"),
    ("src/new_model.py", "tiny", "--dataset", "stories.txt", *SIZE),
    ("src/encode.py", "stories.txt", "stories.npz", "--model_name", "tiny"),
)
SELECTED = ("--dist", "worksteal", "-m", "not slow")  # as `make test` does
TRAIN = [
    "src/train.py",
    "--dataset",
    "stories.npz",
    "--model_name",
    "tiny",
    "--sample_every",
    "1000",
]
AFTER = (
    (*TRAIN, "--max_steps", "20"),
    ("src/generate_unconditional_samples.py", "--model_name", "run1", "--nsamples", "2"),
    ("src/evaluate.py", "perplexity", "--model_name", "run1", "--dataset", "stories.txt"),
)


class Environment(NamedTuple):
    """An interpreter with the project's requirements, and a clone of the project."""

    python: Path
    clone: Path

    def run(self, *arguments: str) -> str:
        """Run Python in the clone and return what it prints; exit if it fails."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.clone,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


def prepare(words: str, folder: Path) -> Environment:
    """Make the environment of one argument, unless an earlier call did, and a fresh clone."""
    interpreter, *versions = words.split(",")
    home = folder / re.sub(r"[^\w.]+", "-", words)
    python, clone = home / "venv" / "bin" / "python", home / "clone"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", home / "venv"], check=True)
    home.joinpath("versions.txt").write_text("\n".join(versions))
    subprocess.run(["rm", "-rf", clone], check=True)
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    install = ["install", "-q", "-r", clone / "requirements-dev.txt", "-c", home / "versions.txt"]
    subprocess.run([python, "-m", "pip", *install], check=True)
    return Environment(python, clone)


def try_flow(environment: Environment) -> None:
    """Type the README's commands; the training is interrupted once."""
    for command in BEFORE:
        environment.run(*command)
    training = subprocess.Popen(
        [environment.python, *TRAIN],
        cwd=environment.clone,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    for line in training.stdout or ():
        if line.startswith("[10 |"):
            training.send_signal(signal.SIGINT)
            break
    output, _ = training.communicate()
    if training.returncode or "Saving" not in output:
        sys.exit(f"Ctrl+C did not save: exit code {training.returncode}\n{output}")
    for command in AFTER:
        environment.run(*command)


def run_tests(environment: Environment, data: Path) -> str:
    """Run the test suite and return its last line's counts."""
    done = subprocess.run(
        [environment.python, "-m", "pytest", "-q", "-n", "2", *SELECTED],
        cwd=environment.clone,
        env=os.environ | {"GPT2_TEST_DATA": str(data)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    (environment.clone.parent / "tests.txt").write_text(done.stdout, encoding="utf-8")
    counts = re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout.splitlines()[-1])
    return ", ".join(f"{int(number):,} {word}" for number, word in counts)


def row(words: str, folder: Path, data: Path | None) -> list[str]:
    """Try one version and return its cells of the table; without data, the tests are not run."""
    environment = prepare(words, folder)
    versions = environment.run("-c", SHOW).split()
    python = environment.run("--version").split()[-1]
    try_flow(environment)
    tests = run_tests(environment, data) if data else "not run"
    system = f"{platform.system()} {platform.machine()}"
    return [python, *versions, system, "yes", tests, datetime.date.today().isoformat()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("versions", nargs="+", metavar="PYTHON[,PACKAGE==VERSION...]")
    parser.add_argument("--folder", type=Path, required=True, help="for environments and clones")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--no_tests", action="store_true", help="type the commands only")
    parser.add_argument("--docs", metavar="FILE", help="a Markdown file, to renew its table")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    heads = ["Python", "TensorFlow", "NumPy", "system", "commands of 2019", "make test", "date"]
    data = None if args.no_tests else args.data
    text = table(heads, [row(words, args.folder.resolve(), data) for words in args.versions])
    print(text)
    if args.docs:
        write_section(Path(args.docs), text, "pythons")


if __name__ == "__main__":
    main()
