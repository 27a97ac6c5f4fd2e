#!/usr/bin/env python3
"""Compare the speed of this checkout with that of the commit before it, in about two minutes.

    python benchmarks/guard.py
    python benchmarks/guard.py --before v1.0

Start-up, generation, a training step and encoding are measured with the commands of both checkouts,
which take turns. Exits with status 1 if one of them takes over 25 % longer here in three quarters
of the rounds. Without an earlier commit, as in a shallow clone, there is nothing to compare.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import corpora
from report import table

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.25  # times the duration before
ROUNDS = 3
TEXT, SMALL_TEXT = 4_000_000, 200_000  # bytes
TOKENS = 400  # generated for the speed of generation
STEPS, WARM_UP = 14, 4  # of training; the first ones trace the graphs

# A training step as it is printed: [step | seconds since the start].
STEP = re.compile(rb"\[(\d+) \| (\d+\.\d+)\]")


class Checkout:
    """Commands of one checkout, run in a folder of its own."""

    def __init__(self, root: Path, folder: Path, text: Path, small_text: Path):
        self.root, self.folder, self.text, self.small_text = root, folder, text, small_text
        (folder / "models").mkdir(parents=True)  # not to use those of the checkout
        sizes = ("--n_embd", "256", "--n_layer", "4", "--n_head", "4", "--n_ctx", "512")
        self.run("new_model", "small", "--dataset", self.small_text, *sizes, "--seed", "1")
        self.run("encode", self.small_text, "small.npz", "--model_name", "small")

    def run(self, command: str, *arguments: object, prompt: bytes = b"") -> bytes:
        """Return the standard output of a command."""
        line = [sys.executable, self.root / "src" / f"{command}.py", *arguments]
        done = subprocess.run(
            list(map(str, line)),
            cwd=self.folder,
            input=prompt,
            capture_output=True,
        )
        if done.returncode:
            raise SystemExit(f"{self.root}, {command}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def start(self) -> float:
        """Seconds from a command to its first token."""
        return timed(lambda: self._sample(1))

    def generation(self) -> float:
        """Seconds per token."""
        return (timed(lambda: self._sample(TOKENS)) - timed(lambda: self._sample(1))) / TOKENS

    def training(self) -> float:
        """Seconds per training step, the median without the first ones."""
        output = self.run(
            *("train", "--dataset", "small.npz", "--model_name", "small"),
            *("--restore_from", "fresh", "--batch_size", "4", "--max_steps", STEPS, "--seed", "1"),
        )
        seconds = [float(found[2]) for found in STEP.finditer(output)]
        steps = [after - before for before, after in pairwise(seconds)]
        return statistics.median(steps[WARM_UP:])

    def encoding(self) -> float:
        """Seconds to encode a text."""
        return timed(lambda: self.run("encode", self.text, "large.npz", "--model_name", "small"))

    def _sample(self, length: int) -> None:
        self.run(
            "interactive_conditional_samples",
            *("--model_name", "small", "--length", length, "--top_k", "40", "--ignore_eos"),
            prompt=b"Once upon a time\n",
        )


MEASURES: dict[str, Callable[[Checkout], float]] = {
    "command to first token": Checkout.start,
    "token": Checkout.generation,
    "training step": Checkout.training,
    "encoding": Checkout.encoding,
}


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(now: Checkout, before: Checkout, measure: Callable[[Checkout], float]) -> list[float]:
    """Return the ratio of both durations in each round, in which they take turns."""
    ratios = []
    for number in range(ROUNDS):
        pair = [now, before] if number % 2 else [before, now]
        seconds = {checkout: measure(checkout) for checkout in pair}
        ratios.append(seconds[now] / seconds[before])
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="HEAD~1", help="commit to compare with")
    args = parser.parse_args()
    git = ("git", "-C", ROOT)
    commit = (*git, "rev-parse", "--verify", "--quiet", f"{args.before}^{{commit}}")
    if subprocess.run(commit, stdout=subprocess.DEVNULL).returncode:
        print(f"There is no commit {args.before} here to compare with.")
        return
    slow = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # `git archive` leaves the repository as it is, unlike a worktree.
        archive = subprocess.run((*git, "archive", args.before), stdout=subprocess.PIPE, check=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder / "before", filter="data")
        text, small_text = folder / "text.txt", folder / "small.txt"
        corpora.make_corpus(text, corpora.sources(), TEXT)
        corpora.make_corpus(small_text, corpora.sources(), SMALL_TEXT)
        now = Checkout(ROOT, folder / "run-now", text, small_text)
        before = Checkout(folder / "before", folder / "run-before", text, small_text)
        rows = []
        for label, measure in MEASURES.items():
            ratios = compare(now, before, measure)
            if statistics.median(ratios) > LIMIT:  # again: others may have been at work
                ratios += compare(now, before, measure) + compare(now, before, measure)
            rows.append(
                [
                    label,
                    f"{statistics.median(ratios):.2f}",
                    f"{min(ratios):.2f} to {max(ratios):.2f}",
                ]
            )
            # Noise makes some rounds slower, a slower program makes all of them slower.
            if statistics.quantiles(ratios, n=4)[0] > LIMIT:
                slow.append(label)
    print(table([f"time compared with {args.before}", "median", "rounds"], rows))
    if slow:
        raise SystemExit(f"Over {LIMIT - 1:.0%} slower than {args.before}: {', '.join(slow)}.")


if __name__ == "__main__":
    main()
