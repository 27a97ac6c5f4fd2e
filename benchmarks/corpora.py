#!/usr/bin/env python3
"""Encode a large text and watch the memory of all processes, on Linux.

    python benchmarks/corpora.py --text shakespeare.txt --size 2000 --write docs/datasets.md

The text is made of the lines of others, in one order after the other, and deleted afterwards.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import machine
import report

PAUSE = 0.1  # seconds between two looks at the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--text", type=Path, nargs="+", required=True, help="texts to take the lines from")
    add("--size", type=int, default=2000, help="of the text that is made, in MB")
    add("--models_dir", default="models", help="where 117M is")
    add("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    add("--outputs", nargs="+", default=["tokens/", "tokens.npz"], help="what is written")
    add("--write", type=Path, help="Markdown file whose section is replaced")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        size = make_corpus(corpus, args.text, args.size * 10**6)
        rows = [
            measure(corpus, Path(folder), out, workers, args.models_dir)
            for out in args.outputs
            for workers in args.workers
        ]
    lines = "\n".join(
        f"| `{out}` | {workers} | {seconds:.0f} s | {size / seconds / 1e6:.1f} MB/s "
        f"| {most / 1e6:.0f} MB | {written / 1e6:.0f} MB |"
        for out, workers, seconds, most, written in rows
    )
    host = machine.describe()
    section = (
        f"Measured by `benchmarks/corpora.py` on {host['cpu']}, {host['cores']} cores: one text of "
        f"{size / 1e6:.0f} MB; the memory is that of all processes together at its highest.\n\n"
        "| written | `--workers` | time | speed | memory | size |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{lines}"
    )
    print(section)
    if args.write:
        report.write_section(args.write, section, "corpora")


def make_corpus(path: Path, texts: list[Path], size: int) -> int:
    """Write a text of at least that many bytes; returns how many."""
    lines = [line for text in texts for line in text.read_bytes().splitlines(keepends=True)]
    order = random.Random(1)
    written = 0
    with open(path, "wb") as file:
        while written < size:
            order.shuffle(lines)
            written += file.write(b"".join(lines))
    return written


def measure(
    corpus: Path, folder: Path, out: str, workers: int, models_dir: str
) -> tuple[str, int, float, int, int]:
    """Encode; returns what, by how many, the seconds, the most memory and the size in bytes."""
    name = f"{workers}-{out}"
    command = [sys.executable, ROOT / "src" / "encode.py", corpus, f"{folder}/{name}"]
    command += ["--models_dir", models_dir, "--workers", str(workers)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(PAUSE)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    path = folder / name
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    return out, workers, seconds, most, size


def memory(process: int) -> int:
    """The bytes of memory that a process and those it has started take now."""
    try:
        place = Path(f"/proc/{process}")
        children = [
            int(child)
            for task in (place / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        status = (place / "status").read_text()
        own = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(own.split()[1]) * 1024 + sum(map(memory, children))
    except (OSError, StopIteration):  # it has just ended
        return 0


if __name__ == "__main__":
    main()
