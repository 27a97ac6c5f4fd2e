#!/usr/bin/env python3
"""Compare training on packed examples with training on padded ones, in examples per second.

python benchmarks/packing.py --docs docs/benchmarks/training.md

Packed and padded steps take turns in one process, on generated short stories and on lines. A padded
batch of lines has about as many places as a packed one. Packed rows have different numbers of
examples (few long or many short ones) but take the same time, so the examples per second are those
of an epoch: the mean number of examples in a step, divided by the median time of a step.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import machine
import numpy as np
from report import table, write_section

N_CTX = 1024
SIZES = {"n_vocab": 16000, "n_embd": 512, "n_head": 8, "n_layer": 4}
OTHERS, PATIENCE = 0.05, 20.0  # share of the processors that others may use; seconds to wait
ROUNDS, STEPS = 7, 3  # interleaved; the figure of a round is the median of its steps


class Kind(NamedTuple):
    """A kind of examples, whose lengths follow a gamma distribution."""

    name: str
    count: int
    mean: int  # tokens, <|endoftext|> included
    longest: int
    shape: float  # of the distribution; less is more uneven
    bar: float  # of the ratio of examples per second


KINDS = (
    Kind("short stories", 5_000, 205, 1_000, 2.5, 4.0),
    Kind("lines", 40_000, 10, 22, 6.0, 2.0),
)


def documents(kind: Kind) -> object:
    """Return random examples of a kind as documents."""
    from gpt2.data.datasets import documents_in

    random = np.random.default_rng(1)
    lengths = random.gamma(kind.shape, kind.mean / kind.shape, kind.count).round().astype(int)
    lengths = np.clip(lengths, 2, kind.longest)
    lengths[0] = kind.longest
    tokens = random.integers(1, SIZES["n_vocab"], lengths.sum(), dtype=np.int32)
    tokens[np.cumsum(lengths) - 1] = 0
    return documents_in([tokens], endoftext=0)


def measure(kind: Kind) -> list[str]:
    """Return a row of the table."""
    from gpt2.data.samplers import DocumentSampler
    from gpt2.hparams import HParams
    from gpt2.model import initial_weights
    from gpt2.training.settings import TrainerSettings
    from gpt2.training.trainer import Trainer

    hparams = HParams(n_ctx=N_CTX, **SIZES)
    trainer = Trainer(initial_weights(hparams, seed=1), hparams, TrainerSettings(), seed=1)
    samplers = [DocumentSampler(documents(kind), N_CTX, 1, packing) for packing in (False, True)]
    sizes = [max(1, N_CTX // sampler.window) for sampler in samplers]
    shares, counts = [], []
    for sampler, size in zip(samplers, sizes, strict=True):
        # The last batch of an epoch reaches into the next one.
        steps = sampler.steps_per_epoch(size) - 1
        batches = [sampler.batch(number, size) for number in range(steps)]
        targets = sum(batch.target_count for batch in batches)
        shares.append(targets / (steps * size * sampler.window))
        examples = sum(1 for batch in batches for _ in batch.examples())
        counts.append(examples / steps)
    numbers = iter(range(1, 10**9))

    def seconds(sampler: DocumentSampler, size: int) -> float:
        """Seconds of a step of a round, its batch included."""
        found = []
        for _ in range(STEPS):
            number, start = next(numbers), time.perf_counter()
            trainer.step(number, [sampler.batch(number, size)])
            found.append(time.perf_counter() - start)
        return statistics.median(found)

    rates = []
    for _ in range(ROUNDS + 1):
        machine.wait_for_quiet(OTHERS, PATIENCE)
        measured = [seconds(*one) for one in zip(samplers, sizes, strict=True)]
        rates.append([count / time_ for count, time_ in zip(counts, measured, strict=True)])
    padded, packed = zip(*rates[1:], strict=True)  # the first round traces the graphs
    ratio = statistics.median(two / one for one, two in zip(padded, packed, strict=True))
    print(f"{kind.name}: {ratio:.2f}x", flush=True)
    return [
        kind.name,
        *(f"{size} x {sampler.window}" for sampler, size in zip(samplers, sizes, strict=True)),
        *(f"{share:.1%}" for share in shares),
        *(f"{statistics.median(values):,.0f}" for values in (padded, packed)),
        f"{ratio:.1f}",
        f"{kind.bar:g}",
    ]


def preface() -> str:
    """Return how the figures were measured."""
    described = machine.describe()
    kinds = "; ".join(
        f"{kind.count:,} {kind.name} (mean {kind.mean} tokens, longest {kind.longest:,})"
        for kind in KINDS
    )
    return (
        f"Measured on {datetime.date.today().isoformat()} by `benchmarks/packing.py`: "
        f"{described['cpu']}, {described['cores']} cores, load {described['load']:.1f}. {kinds}; "
        f"{SIZES['n_layer']} layers, hidden size {SIZES['n_embd']}, window {N_CTX}, Adam. Median "
        f"of {ROUNDS} rounds, in which padded and packed steps take turns."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", metavar="FILE", help="a Markdown file, to renew its table")
    args = parser.parse_args()
    text = preface()
    heads = ["examples", "padded batch", "packed batch", "real tokens, padded", "packed"]
    heads += ["examples/s, padded", "packed", "ratio", "required"]
    text += f"\n\n{table(heads, [measure(kind) for kind in KINDS])}"
    print(f"\n{text}")
    if args.docs:
        write_section(Path(args.docs), text, "benchmark packing")


if __name__ == "__main__":
    main()
