#!/usr/bin/env python3
"""Measure time and peak memory of training a vocabulary on a large text, on Linux.

    python benchmarks/vocabularies.py --size 100 --merges 30000 --write docs/benchmarks/encoding.md

The text consists of the source files of Python and of the installed packages.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import corpora
import machine
import report

HEADS = ["text", "merges", "`--workers`", "time", "memory"]
TINY = ["--n_ctx", 16, "--n_embd", 4, "--n_head", 1, "--n_layer", 1]  # the weights cost nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--size", type=int, default=100, help="size of the text (MB)")
    add("--merges", type=int, default=30000, help="number of merges to learn")
    add("--workers", type=int, nargs="+", default=[2], help="numbers of processes")
    add("--write", type=Path, help="Markdown file to write the table to")
    args = parser.parse_args()
    others = machine.taken()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        size = corpora.make_corpus(corpus, corpora.sources(), args.size * 10**6)
        for workers in args.workers:
            command = [sys.executable, ROOT / "src" / "new_model.py", f"model-{workers}", *TINY]
            command += ["--dataset", corpus, "--n_vocab", 257 + args.merges]
            command += ["--workers", workers, "--models_dir", Path(folder) / "models"]
            seconds, most = corpora.watch(command)
            made = f"{size / 1e6:.0f} MB", f"{args.merges:,}"
            rows.append([*made, str(workers), f"{seconds:.0f} s", f"{most / 1e6:.0f} MB"])
    host = machine.describe()
    section = (
        "Learning a vocabulary from Python source files, by `benchmarks/vocabularies.py` on "
        f"{host['cpu']}, {host['cores']} cores, other load {others:.0%}; memory is the peak "
        f"of all processes together.\n\n{report.table(HEADS, rows)}"
    )
    print(section)
    if args.write:
        report.write_section(args.write, section, "learning")


if __name__ == "__main__":
    main()
