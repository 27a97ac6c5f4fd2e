#!/usr/bin/env python3
"""Time from the command to its first completion, and the memory of a session.

    python benchmarks/startup.py --model_name 124M --old ../before --rounds 5

Each command runs as a whole process, interleaved with the same command of another checkout (--old)
and, if llama-cpp-python is installed, with the same weights there (--gguf FILE). The model has to
be converted before (run any sampler once).
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from machine import describe, environment, taken
from report import START, record, table, write_section

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="124M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--quantize", nargs="+", default=["none", "int8"])
    parser.add_argument("--old", help="another checkout to compare with")
    parser.add_argument("--gguf", help="the same weights for llama.cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    folder, model = Path.cwd(), Path(args.model_name).name
    checkouts = {"now": ROOT} | ({"before": Path(args.old).resolve()} if args.old else {})
    commands = {
        f"{name}, {quantize}": [
            sys.executable,
            str(root / "src" / "interactive_conditional_samples.py"),
            *(
                "--model_name",
                args.model_name,
                "--models_dir",
                str(Path(args.models_dir).absolute()),
            ),
            *("--length", "1", "--quantize", quantize, "--top_k", "40"),
        ]
        for quantize in args.quantize
        for name, root in checkouts.items()
    }
    if args.gguf:
        commands["llama.cpp"] = [sys.executable, "-c", LLAMA, args.gguf, PROMPT]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        seconds_and_memory(command, folder)  # warm-up
    for _ in range(args.rounds):
        for name, command in commands.items():
            found[name].append(seconds_and_memory(command, folder))
    machine = describe()
    medians = {
        name: [statistics.median(values) for values in zip(*rounds, strict=True)]
        for name, rounds in found.items()
    }
    text = (
        f"Measured on {datetime.date.today()} by `benchmarks/startup.py`: {machine['cpu']}, "
        f"{machine['cores']} cores, other load {taken():.0%}. Whole processes, from the command to "
        f"the first token, {model}; median of {args.rounds} interleaved rounds.\n\n"
    ) + table(
        ["command", "time, s", "peak memory, MB"],
        [[name, f"{seconds:.2f}", f"{memory:.0f}"] for name, (seconds, memory) in medians.items()],
    )
    print(text)
    if args.docs:
        write_section(args.docs, text, f"start {model}")
        measured = {
            START.format(model, quantize): f"{medians[f'now, {quantize}'][0]:.2f} s"
            for quantize in args.quantize
        }
        record(args.docs, machine["cpu"], measured)


if __name__ == "__main__":
    main()
