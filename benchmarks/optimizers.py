#!/usr/bin/env python3
"""Compare this project's optimizers with Keras's on random weights of GPT-2 124M's shapes.

python benchmarks/optimizers.py --docs docs/benchmarks/training.md

Each takes its steps in a process of its own, so that its peak of memory is its own. Beside them
stand the parts that every step has or may have: the norm of the gradients, and clipping.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import machine
from report import table, write_section

from gpt2.hparams import HParams
from gpt2.training.settings import OPTIMIZERS, TrainerSettings

STEPS = 9
RATE = 0.00002


def ours(name: str, clip_norm: float | None = None) -> tuple[Callable[[], object], list]:
    """A step of one of ours on constant gradients, and what it remembers."""
    import tensorflow as tf

    from gpt2.training.optimizers import BY_NAME

    variables, gradients = tensors()
    optimizer = BY_NAME[name](variables, TrainerSettings(optimizer=name))

    @tf.function
    def step() -> None:
        factor = None
        if clip_norm:
            factor = clip_norm / tf.maximum(tf.linalg.global_norm(gradients), clip_norm)
        optimizer.apply(gradients, tf.constant(RATE), factor)

    return step, list(optimizer.slots.values())


def keras(name: str) -> tuple[Callable[[], object], list]:
    """The same of one of Keras's."""
    import keras
    import tensorflow as tf

    variables, gradients = tensors()
    optimizer = getattr(keras.optimizers, name)(RATE)
    optimizer.build(list(variables.values()))

    @tf.function
    def step() -> None:
        optimizer.apply_gradients(zip(gradients, variables.values(), strict=True))

    return step, optimizer.variables


def norm() -> tuple[Callable[[], object], list]:
    """The norm of the gradients alone."""
    import tensorflow as tf

    _, gradients = tensors()
    return tf.function(lambda: tf.linalg.global_norm(gradients)), []


def tensors() -> tuple[dict, list]:
    """Variables and gradients of the model's shapes."""
    import tensorflow as tf

    shapes = HParams().tensor_shapes()
    variables = {n: tf.Variable(tf.random.normal(s, stddev=0.02)) for n, s in shapes.items()}
    return variables, [tf.random.normal(shape, stddev=1e-3) for shape in shapes.values()]


KINDS: dict[str, Callable[[], tuple[Callable[[], object], list]]] = {
    "norm of the gradients": norm,
    **{name: lambda name=name: ours(name) for name in OPTIMIZERS},
    "adam, clipped": lambda: ours("adam", 1.0),
    "Keras Adam": lambda: keras("Adam"),
    "Keras AdamW": lambda: keras("AdamW"),
    "Keras Adafactor": lambda: keras("Adafactor"),
}


def measure(kind: str) -> list[str]:
    """A row of the table."""
    step, slots = KINDS[kind]()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        result = step()
        if result is not None:
            result.numpy()
        seconds.append(time.perf_counter() - start)
    numbers = sum(int(slot.numpy().size) for slot in slots)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    milliseconds = 1000 * statistics.median(seconds[2:])
    return [kind, f"{milliseconds:.0f}", f"{numbers / 1e6:.1f}", f"{peak:.1f}"]


def preface() -> str:
    described = machine.describe()
    return (
        f"Measured on {datetime.date.today().isoformat()} by `benchmarks/optimizers.py`: "
        f"{described['cpu']}, {described['cores']} cores. GPT-2 124M, median of {STEPS - 2} steps "
        "after two warm-up steps; every optimizer runs in its own process."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", metavar="FILE", help="a Markdown file, to renew its table")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        print(*measure(args.kind), sep="|")
        return
    rows = []
    for kind in KINDS:
        call = [sys.executable, __file__, "--kind", kind]
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        rows.append(done.stdout.strip().splitlines()[-1].split("|"))
        print(*rows[-1], sep=", ", flush=True)
    heads = ["optimizer", "ms per step", "state, millions of numbers", "peak, GB"]
    text = f"{preface()}\n\n{table(heads, rows)}"
    print(f"\n{text}")
    if args.docs:
        write_section(Path(args.docs), text, "benchmark optimizers")


if __name__ == "__main__":
    main()
