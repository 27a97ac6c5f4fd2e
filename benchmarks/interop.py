#!/usr/bin/env python3
"""Time and peak memory of converting a model of 124M parameters.

    python benchmarks/interop.py --docs docs/interop.md

Each conversion is a process of its own, as its peak memory is measured, and the conversions take
turns. The weights are random; the vocabulary has 50,257 tokens and their merges.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import machine
import numpy as np
from report import write_section

from gpt2.hparams import HParams
from gpt2.interop.weights import PortableModel, write_model
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE

CONVERT = ROOT / "src" / "convert.py"
STEPS = {
    "to_hf": ["to_hf", "model", "hf", "--overwrite"],
    "to_hf --dtype fp16": ["to_hf", "model", "half", "--dtype", "fp16", "--overwrite"],
    "from_hf": ["from_hf", "hf", "./back", "--overwrite"],
    "from_hf of fp16": ["from_hf", "half", "./back", "--overwrite"],
}


def write_random_model(path: Path, hparams: HParams) -> None:
    """Write a model with random weights and a vocabulary of bytes, pairs and `<|endoftext|>`."""
    random = np.random.default_rng(0)
    shapes = hparams.tensor_shapes()
    letters = list(CHARACTER_OF_BYTE.values())
    merges = list(itertools.islice(itertools.product(letters, letters), hparams.n_vocab - 257))
    tokens = [*letters, *map("".join, merges), "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}

    def read(name: str) -> np.ndarray:
        return random.standard_normal(shapes[name], np.float32) * np.float32(0.02)

    write_model(path, PortableModel(hparams, vocabulary, merges, read))


class Cost(NamedTuple):
    """What a conversion took."""

    seconds: float
    processor: float  # seconds of processor time
    memory: int  # peak, bytes


def measure(words: list[str], folder: Path) -> Cost:
    """Return what a conversion in its own process takes.

    Linux counts the memory of the process that starts it too, so that one must be small.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(CONVERT), *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"convert {' '.join(words)} failed")
    seconds = time.perf_counter() - begin
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--docs", type=Path, help="page to write the table to")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_random_model(args.write, HParams())
        return
    hparams = HParams()
    weights = 4 * hparams.parameters
    found: dict[str, list[Cost]] = {name: [] for name in STEPS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        model = folder / "models" / "model"
        subprocess.run([sys.executable, __file__, "--write", str(model)], check=True)
        # What a copy of the weights takes on this disk, flushed; no conversion can be faster.
        begin = time.perf_counter()
        data = next(model.glob("*.data-*"))
        shutil.copyfile(data, folder / "copy")
        with open(folder / "copy", "rb+") as file:
            os.fsync(file.fileno())
        copying = time.perf_counter() - begin
        (folder / "copy").unlink()
        for _ in range(args.rounds):
            for step, words in STEPS.items():
                found[step].append(measure(words, folder))
    about = machine.describe()
    rows = [
        "| conversion | seconds | processor, s | peak memory | of the weights |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for step, costs in found.items():
        seconds, processor, memory = map(statistics.median, zip(*costs, strict=True))
        rows.append(
            f"| `{step}` | {seconds:.1f} | {processor:.1f} | {memory / 1e6:,.0f} MB "
            f"| {memory / weights:.2f} |"
        )
    table = (
        f"{hparams.parameters / 1e6:.0f}M parameters, {weights / 1e6:,.0f} MB in float32. Measured "
        f"on {datetime.date.today()} by `benchmarks/interop.py`: {about['cpu']}, {about['cores']} "
        f"cores, load {about['load']:.1f}; median of {args.rounds} rounds. Copying the weights to "
        f"the same disk took {copying:.1f} s.\n\n" + "\n".join(rows)
    )
    print(table)
    if args.docs:
        write_section(args.docs, table, "conversions")


if __name__ == "__main__":
    main()
