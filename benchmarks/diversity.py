#!/usr/bin/env python3
"""How long the measures of diversity take, and how much memory.

    python benchmarks/diversity.py shakespeare.txt

A thousand samples of a thousand words are cut from the text at random; the training text is 100 MB
of it, over and over.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from machine import describe
from report import table, write_section

from gpt2.data import tokenization
from gpt2.evaluation import diversity

SAMPLES, WORDS, TRAINING = 1000, 1000, 100_000_000
SEED = 1


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path, help="file of UTF-8 text")
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    content = args.text.read_text(encoding="utf-8")
    words = diversity.split_words(content)
    starts = np.random.default_rng(SEED).integers(0, len(words) - WORDS, SAMPLES)
    texts = [" ".join(words[start : start + WORDS]) for start in starts]
    del words
    numbers: dict[str, int] = {}
    before = memory()
    samples: list[np.ndarray] = []
    steps: dict[str, Callable[[], object]] = {
        "words numbered": lambda: samples.extend(
            diversity.number_words(sample, numbers) for sample in texts
        ),
        "distinct-1, -2 and -3": lambda: [diversity.distinct(samples, n) for n in (1, 2, 3)],
        "self-BLEU": lambda: diversity.self_bleu(samples),
        "rep-4": lambda: diversity.repetition(samples, 4),
        "longest repeated spans": lambda: list(map(diversity.longest_repeated_span, samples)),
        "copied-8": lambda: diversity.copied([samples], numbers, training(args.text), 8),
    }
    rows = []
    for name, step in steps.items():
        start = time.monotonic()
        step()
        rows.append([name, f"{time.monotonic() - start:.1f}", f"{memory() - before:.0f}"])
    shown = table(["", "seconds", "peak memory so far, MB"], rows)
    print(shown)
    if args.docs:
        machine = describe()
        where = (
            f"Measured by `benchmarks/diversity.py` with one core of {machine['cpu']}, Python "
            f"{machine['python']}: {SAMPLES:,} samples of {WORDS:,} words, training text of "
            f"{TRAINING / 1e6:.0f} MB."
        )
        write_section(args.docs, f"{where}\n\n{shown}", "diversity")


def training(path: Path) -> Iterator[str]:
    """The text over and over, read from the file each time."""
    for _ in range(-(-TRAINING // path.stat().st_size)):
        yield from tokenization.read_texts([path])


def memory() -> float:
    """The most that this process has held so far, in MB (Linux counts in KB, macOS in bytes)."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 1e6 if sys.platform == "darwin" else held / 1e3


if __name__ == "__main__":
    main()
