"""What went wrong in a step, in words that help."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from gpt2.data.sampler import DocumentSampler, Sampler
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer
from gpt2.training.memory import REMEDIES

BEGINNING = 12  # tokens


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Make of running out of memory a sentence with the flags that help.

    Raises:
        UserError: memory has run out.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise UserError(
            "There is not enough memory for this training; what was saved is kept, and less is "
            f"needed with {REMEDIES}."
        ) from error


def batch_in_words(
    loss: Callable[[np.ndarray], float],
    sampler: Sampler | DocumentSampler,
    numbers: Iterable[int],
    size: int,
    tokenizer: Tokenizer,
) -> str:
    """Which of a step's examples broke it: its batch, its place in the data and how it begins.

    Args:
        loss: of a batch, with the weights as they were before the step.
        numbers: of the step's batches, each of this size.
    """
    examples = [
        (number, row, example[np.newaxis])
        for number in numbers
        for row, example in enumerate(sampler.batch(number, size))
    ]
    # Where none is to blame alone, the first one stands for all.
    broken = (example for example in examples if not math.isfinite(loss(example[2])))
    number, row, example = next(broken, examples[0])
    tokens = [int(token) for token in example[0, :BEGINNING] if token >= 0]
    place = sampler.describe(number, size)[row]
    return f"batch {number}, {place}, the text {tokenizer.decode(tokens)!r}..."
