#!/usr/bin/env python3
"""Run all benchmarks; write their tables into docs/benchmarks and a short one into the README.

    python benchmarks/all.py --peers peers/bin/python
    python benchmarks/all.py --only startup.py generation.py

The models have random weights, and the texts are source files of Python, so nothing is downloaded.
A benchmark that fails is reported at the end, and the others run.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import corpora
import report

PAGES = ROOT / "docs" / "benchmarks"
LETTERS = 3_000_000  # bytes of text from which a vocabulary of the size of GPT-2's is learned

# Script, page and arguments. {model} is a model folder with the sizes of GPT-2 124M and random
# weights, {models} the folder that holds it, {text} a text of 10 MB, and {peers} the option --peers
# where it is given.
BENCHMARKS = (
    ("startup.py", "generation.md", "--model_name {model} --quantize none int8 int4"),
    ("startup.py", "generation.md", "--small"),
    ("generation.py", "generation.md", "--model {model} {peers}"),
    ("speculation.py", "generation.md", "--model_name 124M --models_dir {models} --text {text}"),
    ("training.py", "training.md", "{peers}"),
    ("packing.py", "training.md", ""),
    ("optimizers.py", "training.md", ""),
    ("serving.py", "serving.md", "--models_dir {models}"),
    ("encoding.py", "encoding.md", "{model} {text} --made 1 32"),
    ("evaluation.py", "evaluation.md", "{peers}"),
)


def make_model(folder: Path) -> Path:
    """Return a new model folder with the sizes of GPT-2 124M and random weights."""
    text = folder / "vocabulary.txt"
    corpora.make_corpus(text, corpora.sources(), LETTERS)
    # A token that occurs once counts, too: more frequent ones are fewer than 50,257.
    sizes = "--n_vocab 50257 --min_frequency 1 --n_ctx 1024 --n_embd 768 --n_head 12 --n_layer 12"
    command = [sys.executable, ROOT / "src" / "new_model.py", "124M", "--dataset", text]
    command += ["--seed", "1"]
    subprocess.run([*command, "--models_dir", folder, *sizes.split()], check=True)
    return folder / "124M"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [script for script, *_ in BENCHMARKS]
    parser.add_argument("--peers", help="a Python in which other programs are installed")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SCRIPT")
    args = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        corpora.make_corpus(text, corpora.sources(), 10_000_000)
        values = {
            "model": shlex.quote(str(make_model(folder))),
            "models": shlex.quote(name),
            "text": shlex.quote(str(text)),
            "peers": f"--peers {shlex.quote(args.peers)}" if args.peers else "",
        }
        for script, page, options in BENCHMARKS:
            if script in args.only:
                command = [sys.executable, ROOT / "benchmarks" / script]
                command += [*shlex.split(options.format(**values)), "--docs", PAGES / page]
                print(f"\n== {script}", flush=True)
                if subprocess.run(list(map(str, command))).returncode:
                    failed.append(script)
    report.write_section(ROOT / "README.md", report.summary(PAGES), "speed")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
