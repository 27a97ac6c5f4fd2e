#!/usr/bin/env python3
"""Run the demo in an empty folder and put what it prints, and its time, into docs/demo.md.

python benchmarks/demo.py --docs docs/demo.md
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import machine
from report import write_section

SHOWN = 100  # steps between the progress lines that are kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", metavar="FILE", help="a Markdown file, to renew its section")
    args = parser.parse_args()
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models").mkdir()  # otherwise it would be written to the clone
        started = time.monotonic()
        output = subprocess.run(
            [sys.executable, "-m", "gpt2", "demo"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            check=True,
            encoding="utf-8",
        ).stdout
        seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    preface = (
        f"Measured on {datetime.date.today().isoformat()} by `benchmarks/demo.py`: "
        f"{described['cpu']}, {described['cores']} cores, load {described['load']:.1f} before it "
        f"began; {seconds:.0f} s in all, {used.ru_utime + used.ru_stime:.0f} s of processor time."
    )
    text = f"{preface}\n\n```\n{shortened(output)}\n```"
    print(text)
    if args.docs:
        write_section(Path(args.docs), text, "demo")


def shortened(output: str) -> str:
    """Return the output from the training on, with one progress line in `SHOWN` steps."""
    lines, last = [], 0
    for line in output[output.index("step ") :].splitlines():
        if found := re.match(r"step +(\d+) of", line):
            if int(found[1]) < last + SHOWN and lines:
                continue
            last = int(found[1])
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
