#!/usr/bin/env python3
"""Peak memory and time of the two largest sizes on this machine, with random weights.

    python benchmarks/large_models.py --vocabulary models/124M --docs docs/benchmarks/large.md

Every row is a command, run once as a whole process in a temporary folder that needs 30 GB of disk
space for 1558M. The first generation also converts the model. `--memory_saving_gradients` and a
sequence of 1,024 tokens in each training row; two steps, of which the second is timed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from machine import describe, taken
from report import table, write_section

SIZES = {"774M": (1280, 20, 36), "1558M": (1600, 25, 48)}  # n_embd, n_head, n_layer
WRITE = """
import sys
from pathlib import Path
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.hparams import HParams
from gpt2.model import initial_weights
from gpt2.tokenizer import Tokenizer

tokenizer = Tokenizer.load(Path(sys.argv[1]))
n_embd, n_head, n_layer = map(int, sys.argv[3:])
hparams = HParams(len(tokenizer.vocabulary), n_embd=n_embd, n_head=n_head, n_layer=n_layer)
write_model_folder(
    Path(sys.argv[2]), hparams, tokenizer.vocabulary, tokenizer.merges, initial_weights(hparams, 1)
)
"""
GENERATE = "unconditional --model_name {} --nsamples 1 --length 64 --seed 1 --top_k 40"
TRAIN = (
    "train --dataset text.npz --model_name {} --restore_from fresh --memory_saving_gradients"
    " --max_steps 2 --sample_every 1000 --save_every 1000"
)
COMMANDS = {
    "generation, float32, converting": GENERATE,
    "generation, float32": GENERATE,
    "generation, int8, converting": f"{GENERATE} --quantize int8",
    "generation, int8": f"{GENERATE} --quantize int8",
    "training, LoRA of rank 8": f"{TRAIN} --lora_rank 8",
    "training, adafactor": f"{TRAIN} --optimizer adafactor",
    "training, SGD": f"{TRAIN} --optimizer sgd",
    "training, SGD, bf16": f"{TRAIN} --optimizer sgd --precision bf16",
}


class Run(NamedTuple):
    """A finished process."""

    seconds: float
    peak: int  # bytes of main memory
    status: int
    output: str

    @property
    def step(self) -> str:
        """Seconds of the second training step, or an empty cell."""
        times = [float(found) for found in re.findall(r"^\[\d+ \| ([\d.]+)\]", self.output, re.M)]
        return f"{times[1] - times[0]:.0f}" if len(times) > 1 else ""

    @property
    def result(self) -> str:
        """How it ended: the message of one that did not work."""
        return "" if not self.status else self.output.strip().splitlines()[-1]


def run(arguments: list[str], folder: Path) -> Run:
    """Run Python with these arguments and measure it."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "GPT2_CACHE_DIR": str(folder / "cache"),
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        output.seek(0)
        return Run(seconds, usage.ru_maxrss * 1024, status, output.read())


def measure(size: str, vocabulary: Path, folder: Path) -> list[list[str]]:
    """Return the rows of one size."""
    written = run(["-c", WRITE, vocabulary, f"models/{size}", *map(str, SIZES[size])], folder)
    if written.status:
        sys.exit(written.output)
    text = (ROOT / "README.md").read_text(encoding="utf-8") * 3
    (folder / "text.txt").write_text(text, encoding="utf-8")
    encoded = run(
        ["-m", "gpt2", "encode", "text.txt", "text.npz", "--model_name", size],
        folder,
    )
    if encoded.status:
        sys.exit(encoded.output)
    rows = []
    for name, line in COMMANDS.items():
        done = run(["-m", "gpt2", *shlex.split(line.format(size))], folder)
        row = [size, name, f"{done.seconds:.0f}", done.step, f"{done.peak / 1e9:.1f}", done.result]
        print(*row, sep=" | ", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=Path, required=True, help="folder of a model")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    machine, load = describe(), taken()
    rows = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(size, args.vocabulary.resolve(), Path(folder))
    text = (
        f"Measured on {datetime.date.today()} by `benchmarks/large_models.py`: {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, other load {load:.0%}. "
        "Random weights; 64 tokens are generated.\n\n"
    ) + table(["model", "command", "time, s", "a step, s", "peak memory, GB", "result"], rows)
    print(text)
    if args.docs:
        write_section(args.docs, text, "large models")


if __name__ == "__main__":
    main()
