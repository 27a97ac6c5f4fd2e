#!/usr/bin/env python3
"""Run examples/digits from end to end, once with each seed, and note how well it does.

python benchmarks/digits.py --seeds 1 2 3 --write examples/digits/README.md
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import machine
import report

HEADS = ["seed", "drawn", "read", "minutes", "processor minutes", "date"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="one run for each")
    parser.add_argument("--write", type=Path, help="Markdown file whose table takes in the rows")
    args = parser.parse_args()
    for seed in args.seeds:
        row = measure(seed)
        print(report.table(HEADS, [row]))
        if args.write:
            generate_completions(args.write, row)


def generate_completions(path: Path, row: list[str]) -> None:
    """Put the row into the table of the file; those of other seeds stay."""
    rows = {}
    for line in path.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(HEADS) and cells[0].isdigit():
            rows[int(cells[0])] = cells
    rows[int(row[0])] = row
    host = machine.describe()
    table = report.table(HEADS, [rows[seed] for seed in sorted(rows)])
    section = (
        f"Measured by `benchmarks/digits.py` on {host['cpu']}, {host['cores']} cores, while others "
        f"used them:\n\n{table}"
    )
    report.write_section(path, section, "digits")


def measure(seed: int) -> list[str]:
    """A row of the table."""
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "examples/digits/digits.py", "--seed", str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        out = []
        for line in process.stdout:
            print(line, end="", flush=True)
            out.append(line)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    busy = sum(after[2:4]) - sum(before[2:4])  # user and system time of all the processes
    drawn, read = re.findall(r": (\d+ of \d+, \d+%)$", "".join(out), re.MULTILINE)
    minutes = (time.perf_counter() - began) / 60
    return [str(seed), drawn, read, f"{minutes:.1f}", f"{busy / 60:.1f}", time.strftime("%Y-%m-%d")]


if __name__ == "__main__":
    main()
