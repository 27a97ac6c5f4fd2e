"""The time of a training step, measured."""

from __future__ import annotations

import statistics
import time

from gpt2.data.samplers import DocumentSampler, StreamSampler
from gpt2.training.loop import batch_from
from gpt2.training.memory import enough_memory
from gpt2.training.settings import LoopSettings
from gpt2.training.trainer import Trainer

COMPILING = 2  # first steps, which compile the model and do not count
STEPS = range(3, 21)  # the fewest and the most steps that are measured
SECONDS = 5.0  # after which no more than the fewest are measured


def seconds_per_step(
    trainer: Trainer, sampler: StreamSampler | DocumentSampler, settings: LoopSettings
) -> float:
    """Return the median time of a few steps, in seconds; the weights change in memory only.

    Raises:
        UserError: memory ran out.
    """
    times: list[float] = []
    size, started = settings.batch_size, time.monotonic()
    while len(times) < COMPILING + STEPS.start or (
        len(times) < COMPILING + STEPS.stop - 1 and time.monotonic() - started < SECONDS
    ):
        first = len(times) * settings.examples_per_step
        before = time.monotonic()
        firsts = range(first, first + settings.examples_per_step, size)
        batches = [batch_from(sampler, first, size) for first in firsts]
        with enough_memory():
            trainer.step(len(times) + 1, batches)
        times.append(time.monotonic() - before)
    return statistics.median(times[COMPILING:])
