#!/usr/bin/env python3
"""Figures for docs/choosing.md: estimated memory, and the loss by learning rate and batch size.

    python benchmarks/choosing.py --docs docs/choosing.md
    python benchmarks/choosing.py --memory --docs docs/choosing.md       # the memory alone, at once

The small model of the tutorial is trained on 2,000 generated stories for every combination of
learning rate and batch size.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import itertools
import json
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from report import write_section

from gpt2.commands.flags import Command
from gpt2.commands.main import VERBS
from gpt2.hparams import HParams
from gpt2.training.memory import estimate
from gpt2.training.settings import TrainerSettings

SIZES = {
    "124M": HParams(),
    "355M": HParams(n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_embd=1600, n_head=25, n_layer=48),
}
FLAGS = {
    "defaults": {},
    "`--memory_saving_gradients`": {"memory_saving_gradients": True},
    "and `--optimizer adafactor`": {"memory_saving_gradients": True, "optimizer": "adafactor"},
    "and `--lora_rank 8`": {"memory_saving_gradients": True, "lora_rank": 8},
}
RATES, BATCHES, STEPS = (0.0003, 0.001, 0.003, 0.01, 0.03), (2, 8), 200


def memory_table() -> str:
    """Return the estimated memory in GB by size and flags, as a table in Markdown."""
    lines = [f"| model | {' | '.join(FLAGS)} |", f"| --- {'| ---: ' * len(FLAGS)}|"]
    for name, hparams in SIZES.items():
        peaks = (
            estimate(hparams, TrainerSettings(**flags), batch_size=1, window=hparams.n_ctx) / 1e9
            for flags in FLAGS.values()
        )
        lines.append(f"| {name} | {' | '.join(f'{peak:.1f}' for peak in peaks)} |")
    return "\n".join(lines)


def run(line: str) -> None:
    """Run a command in this process, without its output."""
    verb, *words = shlex.split(line)
    command = VERBS[verb].load()
    assert isinstance(command, Command)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command.run(command.parse(words, verb))


def losses() -> str:
    """Return the lowest validation loss by learning rate and batch size, as a table."""
    run("stories stories.txt --count 2000 --seed 1")
    run("new-model small --dataset stories.txt --n_vocab 600 --n_ctx 128 --n_embd 64 --seed 1")
    run("encode stories.txt stories.npz --model_name small --lines")
    found = {}
    for rate, batch in itertools.product(RATES, BATCHES):
        name = f"r{rate}-b{batch}"
        run(
            f"train --dataset stories.npz --model_name small --run_name {name} --respect_documents"
            f" --learning_rate {rate} --batch_size {batch} --val_split 0.05 --val_every 50"
            f" --max_steps {STEPS} --sample_every 10000 --seed 1"
        )
        history = Path("checkpoint", name, "history.jsonl").read_text(encoding="utf-8")
        lines = map(json.loads, history.splitlines())
        found[rate, batch] = min(line["val_loss"] for line in lines if "val_loss" in line)
        print(name, found[rate, batch], flush=True)
    head = " | ".join(f"batch size {batch}" for batch in BATCHES)
    rows = [f"| learning rate | {head} |", f"| ---: {'| ---: ' * len(BATCHES)}|"]
    for rate in RATES:
        values = " | ".join(f"{found[rate, batch]:.2f}" for batch in BATCHES)
        rows.append(f"| {rate} | {values} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="store_true", help="only the estimated memory")
    parser.add_argument("--docs", type=Path, help="write the tables to this page")
    options = parser.parse_args()
    page = options.docs.resolve() if options.docs else None
    sections = {"memory": memory_table()}
    if not options.memory:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            Path("models").mkdir()
            table = losses()
            os.chdir(ROOT)
        processor = platform.processor() or platform.machine()
        preface = (
            f"Measured on {datetime.date.today()} by `benchmarks/choosing.py`: lowest validation "
            f"loss within {STEPS} steps ({processor}, {os.cpu_count()} cores)."
        )
        sections["losses"] = f"{preface}\n\n{table}"
    for name, text in sections.items():
        print(text)
        if page:
            write_section(page, text, name)


if __name__ == "__main__":
    main()
