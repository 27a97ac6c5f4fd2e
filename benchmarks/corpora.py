#!/usr/bin/env python3
"""Measure time and peak memory of encoding a large text, on Linux.

    python benchmarks/corpora.py --text T.txt --size 2000 --write docs/benchmarks/encoding.md

The text is a temporary file with the lines of other texts, by default of the source files of Python
and of the installed packages.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import machine
import report

PAUSE = 0.1  # seconds between memory measurements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--text", type=Path, nargs="+", help="texts with the lines to use (default: Python sources)"
    )
    add("--size", type=int, default=2000, help="size of the text (MB)")
    add("--models_dir", default="models", help="folder of the models, with 117M")
    add("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    add("--outputs", nargs="+", default=["tokens/", "tokens.npz"], help="outputs to measure")
    add("--write", type=Path, help="Markdown file to write the table to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        size = make_corpus(corpus, args.text or sources(), args.size * 10**6)
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
        f"{size / 1e6:.0f} MB; memory is the peak of all processes together.\n\n"
        "| output | `--workers` | time | speed | memory | size |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{lines}"
    )
    print(section)
    if args.write:
        report.write_section(args.write, section, "corpora")


def sources() -> list[Path]:
    """Return the source files of Python's library, then those of the installed packages."""
    library, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    own = [file for file in library.rglob("*.py") if "site-packages" not in file.parts]
    return sorted(own) + sorted(packages.rglob("*.py"))


def make_corpus(path: Path, texts: Iterable[Path], size: int) -> int:
    """Write a text of at least `size` bytes that ends with a line; return its size."""
    written = 0
    with open(path, "wb") as file:
        for line in endless_lines(texts):
            written += file.write(line)
            if written >= size:
                break
    return written


def endless_lines(texts: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of the UTF-8 texts, then all of them again and again in random order."""
    lines: list[bytes] = []
    for text in texts:
        with contextlib.suppress(UnicodeDecodeError):
            begin = len(lines)
            lines += text.read_text("utf-8").encode().splitlines(keepends=True)
            yield from lines[begin:]
    order = random.Random(1)
    while True:
        order.shuffle(lines)
        yield from lines


def measure(
    corpus: Path, folder: Path, out: str, workers: int, models_dir: str
) -> tuple[str, int, float, int, int]:
    """Encode the corpus; return output, workers, seconds, peak memory and output size in bytes."""
    name = f"{workers}-{out}"
    command = [sys.executable, ROOT / "src" / "encode.py", corpus, f"{folder}/{name}"]
    command += ["--models_dir", models_dir, "--workers", workers]
    seconds, most = watch(command)
    path = folder / name
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    return out, workers, seconds, most, size


def watch(command: Sequence[object]) -> tuple[float, int]:
    """Run a command; return its time in seconds and its peak memory in bytes."""
    words = list(map(str, command))
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed with exit code {process.returncode}")
    return time.perf_counter() - start, most


def memory(process: int) -> int:
    """Return the memory of a process and its children in bytes."""
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
    except (OSError, StopIteration):  # the process has just ended
        return 0


if __name__ == "__main__":
    main()
