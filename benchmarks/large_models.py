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

from machine import describe, environment, taken
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
LENGTH = 64  # tokens
CONVERTING = "converting"
GENERATE = "unconditional --model_name {} --nsamples 1 --seed 1 --top_k 40 --ignore_eos"
TRAIN = (
    "train --dataset text.npz --model_name {} --restore_from fresh --memory_saving_gradients"
    " --max_steps 2 --sample_every 1000 --save_every 1000"
)
COMMANDS = {
    f"generation, float32, {CONVERTING}": GENERATE,
    "generation, float32": GENERATE,
    f"generation, int8, {CONVERTING}": f"{GENERATE} --quantize int8",
    "generation, int8": f"{GENERATE} --quantize int8",
    f"generation, int4, {CONVERTING}": f"{GENERATE} --quantize int4",
    "generation, int4": f"{GENERATE} --quantize int4",
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
    variables = environment() | {
        "PYTHONPATH": str(ROOT / "src"),
        "GPT2_CACHE_DIR": str(folder / "cache"),
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        output.seek(0)
        return Run(seconds, usage.ru_maxrss * 1024, status, output.read())


def measure(size: str, vocabulary: Path, folder: Path, only: list[str]) -> list[list[str]]:
    """Return the rows of one size: those whose name has a word of `only`, all if it is empty."""
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
        if only and not any(word in name for word in only):
            continue
        command = ["-m", "gpt2", *shlex.split(line.format(size))]
        generation = line.startswith(GENERATE)
        done = run([*command, *(["--length", str(LENGTH)] if generation else [])], folder)
        each = done.step
        if generation and CONVERTING not in name and not done.status:
            shorter = run([*command, "--length", "1"], folder)
            each = f"{(done.seconds - shorter.seconds) / (LENGTH - 1):.3f}"
        row = [size, name, f"{done.seconds:.0f}", each, f"{done.peak / 1e9:.1f}", done.result]
        print(*row, sep=" | ", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=Path, required=True, help="folder of a model")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="commands with one of these words"
    )
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    for size in args.sizes:
        machine, load = describe(), taken()
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(size, args.vocabulary.resolve(), Path(folder), args.only)
        heads = ["model", "command", "time, s", "a token or step, s", "peak memory, GB", "result"]
        text = (
            f"Measured on {datetime.date.today()} by `benchmarks/large_models.py`: "
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, "
            f"other load {load:.0%}. Random weights; {LENGTH} tokens are generated.\n\n"
        ) + table(heads, rows)
        print(text)
        if args.docs:
            write_section(args.docs, text, f"large models {size}")


if __name__ == "__main__":
    main()
