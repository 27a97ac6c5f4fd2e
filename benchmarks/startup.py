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
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe, taken

ROOT = Path(__file__).resolve().parent.parent
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
    )
    process.stdin.write(f"{PROMPT}\n".encode())
    process.stdin.close()
    _, status, usage = _wait(process.pid)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _wait(process: int) -> tuple[int, int, resource.struct_rusage]:
    import os

    return os.wait4(process, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="124M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--quantize", nargs="+", default=["none", "int8"])
    parser.add_argument("--old", help="another checkout to compare with")
    parser.add_argument("--gguf", help="the same weights for llama.cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the measurements to this file")
    args = parser.parse_args()
    folder = Path.cwd()
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
    print(
        f"{datetime.date.today()}, {machine['cpu']}, {machine['cores']} cores, load {taken():.2f}"
    )
    for name, rounds in found.items():
        wall, memory = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name:20} {wall:.2f} s  {memory:.0f} MB")
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": machine, "rounds": found}, indent=1))


if __name__ == "__main__":
    main()
