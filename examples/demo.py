#!/usr/bin/env python3
"""A tour in three minutes, without a download: learn a vocabulary, train a small model, sample.

The text comes with Python: the help topics of its standard library. Each command is printed as you
would type it.
"""

from __future__ import annotations

import pydoc_data.topics
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "demo_data"
HELD_OUT = 10  # one topic in ten is held out for evaluation


def write_topics() -> None:
    """Write one file per topic, to the folder `train` or `held_out`."""
    shutil.rmtree(DATA, ignore_errors=True)
    for number, (name, text) in enumerate(sorted(pydoc_data.topics.topics.items())):
        folder = DATA / ("train" if number % HELD_OUT else "held_out")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def call(command: str) -> None:
    """Print a command, run it in the root of the toolkit, and exit if it fails."""
    print(f"\n$ python {command}", flush=True)
    if code := subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT).returncode:
        sys.exit(code)


def main() -> None:
    for folder in ("models/demo", "checkpoint/demo-run", "samples/demo-run"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    write_topics()
    data = DATA.relative_to(ROOT).as_posix()
    call(f"src/new_model.py demo --dataset {data}/train --seed 1")
    call(f"src/encode.py {data}/train {data}/train.npz --model_name demo")
    call(
        f"src/train.py --dataset {data}/train.npz --model_name demo --run_name demo-run --seed 1"
        " --batch_size 16 --learning_rate 0.001 --max_steps 500 --sample_every 200"
    )
    call(
        "src/generate_unconditional_samples.py --model_name demo-run --nsamples 2 --top_k 40"
        " --seed 1"
    )
    call(
        f"src/evaluate.py bigram --model_name demo-run --dataset {data}/train.npz"
        f" --held_out {data}/held_out"
    )


if __name__ == "__main__":
    main()
