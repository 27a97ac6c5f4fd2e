#!/usr/bin/env python3
"""Time from the command to its first completion or training step, and the memory of a session.

    python benchmarks/startup.py --model_name 124M --old ../before --rounds 5
    python benchmarks/startup.py --small

Each command runs as a whole process, interleaved with the same command of another checkout (--old)
and, if llama-cpp-python is installed, with the same weights there (--gguf FILE). The model has to
be converted before (run any sampler once). With --small, it is made with the sizes of the demo's,
and trained, too.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import corpora
from machine import describe, environment, taken
from report import START, record, table, write_section

from gpt2.commands.demo import MODEL

TEXT = 500_000  # bytes of the training text
STEP = re.compile(rb"\[1 \| ")  # the first line of a step
PROMPT = "Once upon a time"
LLAMA = """
import llama_cpp, sys
model = llama_cpp.Llama(sys.argv[1], n_ctx=1024, n_threads=2, verbose=False)
model(sys.argv[2], max_tokens=1)
"""


def seconds_and_memory(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the wall-clock seconds of a command and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    process.stdin.write(f"{PROMPT}\n".encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def seconds_to_first_step(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds from a command to its first training step, and its memory then in MB."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        if not any(STEP.match(line) for line in process.stdout):
            raise SystemExit(f"{' '.join(command)} ended before its first step")
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    return seconds, int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024


def measure(
    measured: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> tuple[str, dict[str, float]]:
    """Return a table of the medians of interleaved rounds, and the seconds by name."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    for run in measured.values():
        run()  # warm-up
    for _ in range(rounds):
        for name, run in measured.items():
            found[name].append(run())
    medians = {
        name: [statistics.median(values) for values in zip(*times, strict=True)]
        for name, times in found.items()
    }
    shown = table(
        ["command", "time, s", "peak memory, MB"],
        [[name, f"{seconds:.2f}", f"{memory:.0f}"] for name, (seconds, memory) in medians.items()],
    )
    return shown, {name: seconds for name, (seconds, _) in medians.items()}


def script(root: Path, name: str) -> list[str]:
    """Return the beginning of a command of a checkout."""
    return [sys.executable, str(root / "src" / f"{name}.py")]


def measure_small(args: argparse.Namespace, checkouts: dict[str, Path], where: str) -> None:
    """Measure the first completion and the first training step of a model like the demo's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()  # not to use those of the checkout
        corpora.make_corpus(folder / "text.txt", corpora.sources(), TEXT)
        for command, options in (
            ("new_model", ["small", "--dataset", "text.txt", *MODEL.split(), "--seed", "1"]),
            ("encode", ["text.txt", "text.npz", "--model_name", "small"]),
        ):
            subprocess.run([*script(ROOT, command), *options], cwd=folder, check=True)
        runs: dict[str, Callable[[], tuple[float, float]]] = {}
        for checkout, root in checkouts.items():
            sample = script(root, "interactive_conditional_samples")
            sample += ["--model_name", "small", "--length", "1"]
            train = [*script(root, "train"), "--dataset", "text.npz", "--model_name", "small"]
            train += ["--run_name", checkout, "--print_every", "1", "--seed", "1"]
            runs[f"{checkout}, first token"] = functools.partial(seconds_and_memory, sample, folder)
            runs[f"{checkout}, first training step"] = functools.partial(
                seconds_to_first_step, train, folder
            )
        shown, _ = measure(runs, args.rounds)
    text = f"{where}, for a model with the sizes of the demo's.\n\n{shown}"
    print(text)
    if args.docs:
        write_section(args.docs, text, "start small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="124M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--quantize", nargs="+", default=["none", "int8"])
    parser.add_argument("--small", action="store_true", help="measure a model like the demo's")
    parser.add_argument("--old", help="another checkout to compare with")
    parser.add_argument("--gguf", help="the same weights for llama.cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": Path(args.old).resolve()} if args.old else {})
    machine = describe()
    where = (
        f"Measured on {datetime.date.today()} by `benchmarks/startup.py`: {machine['cpu']}, "
        f"{machine['cores']} cores, other load {taken():.0%}. Whole processes, from the command to "
        f"the first token or step, median of {args.rounds} interleaved rounds"
    )
    if args.small:
        measure_small(args, checkouts, where)
        return
    folder, model = Path.cwd(), Path(args.model_name).name
    models_dir = str(Path(args.models_dir).absolute())
    runs = {}
    for quantize in args.quantize:
        for name, root in checkouts.items():
            command = script(root, "interactive_conditional_samples")
            command += ["--model_name", args.model_name, "--models_dir", models_dir]
            command += ["--length", "1", "--quantize", quantize, "--top_k", "40"]
            runs[f"{name}, {quantize}"] = functools.partial(seconds_and_memory, command, folder)
    if args.gguf:
        command = [sys.executable, "-c", LLAMA, args.gguf, PROMPT]
        runs["llama.cpp"] = functools.partial(seconds_and_memory, command, folder)
    shown, seconds = measure(runs, args.rounds)
    text = f"{where}, for {model}.\n\n{shown}"
    print(text)
    if args.docs:
        write_section(args.docs, text, f"start {model}")
        measured = {
            START.format(model, quantize): f"{seconds[f'now, {quantize}']:.2f} s"
            for quantize in args.quantize
        }
        record(args.docs, machine["cpu"], measured)


if __name__ == "__main__":
    main()
