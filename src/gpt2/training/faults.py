"""What went wrong in a step, in words that help."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer

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
            "needed with a lower --batch_size (and --accumulate_gradients for the same steps), "
            "--memory_saving_gradients, --optimizer adafactor or sgd, "
            "--only_train_transformer_layers, or --lora_rank 8."
        ) from error


def batch_in_words(
    loss: Callable[[np.ndarray], float],
    batches: Sequence[np.ndarray],
    first: int,
    tokenizer: Tokenizer,
) -> str:
    """Which of a step's examples broke it: the number of its batch and how its text begins.

    Args:
        loss: of a batch, with the weights as they were before the step.
        batches: of the step, each int32 [B, T+1].
        first: number of the first of them.
    """
    examples = [
        (number, batch[row : row + 1])
        for number, batch in enumerate(batches, start=first)
        for row in range(len(batch))
    ]
    # Where none is to blame alone, the first one stands for all.
    broken = (example for example in examples if not math.isfinite(loss(example[1])))
    number, example = next(broken, examples[0])
    tokens = [int(token) for token in example[0][:BEGINNING] if token >= 0]
    return f"batch {number}, with the text {tokenizer.decode(tokens)!r}..."
