"""How much memory a training will need, how much there is, and what needs less."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.training.settings import TrainerSettings

# What Python and TensorFlow take before there is a model, and the compiled passes of a training.
PROGRAM = 700_000_000  # bytes
FLOAT = 4  # bytes of a float32
# Tensors of a weight's size that an optimizer remembers; adafactor's rows and columns are small.
SLOTS = {"adam": 2, "adamw": 2, "sgd": 0, "adafactor": 0}
LOSS_ROWS = 256  # of float32, as in forward.py, which would load TensorFlow


REMEDIES = (
    "a lower --batch_size (and --accumulate_gradients for the same steps), "
    "--memory_saving_gradients, --optimizer adafactor or sgd, --only_train_transformer_layers, or "
    "--lora_rank 8"
)


def estimate(
    hparams: HParams, settings: TrainerSettings, batch_size: int, window: int, batches: int = 1
) -> int:
    """Bytes that a training will need at its peak, to within about a fifth on a processor.

    Args:
        batch_size: sequences in one batch.
        window: tokens in a sequence.
        batches: that make up a step; the sum of their gradients is as large as what is trained.
    """
    rows = batch_size * window
    block = rows * _kept_by_block(hparams, settings, window)
    if settings.memory_saving_gradients:
        # What goes into each block, and all of the one that is at work.
        blocks = hparams.n_layer * rows * hparams.n_embd * FLOAT + block
    else:
        blocks = hparams.n_layer * block
    sums = FLOAT * trained_parameters(hparams, settings) if batches > 1 else 0
    return PROGRAM + _tensors(hparams, settings) + sums + blocks + _head(hparams, settings, rows)


def trained_parameters(hparams: HParams, settings: TrainerSettings) -> int:
    """How many numbers a training changes: all of the tensors, or LoRA's factors of them."""
    shapes = [hparams.tensor_shapes()[name] for name in settings.trained_tensors(hparams)]
    if settings.lora_rank:
        return settings.lora_rank * sum(sum(shape[-2:]) for shape in shapes)
    return sum(map(math.prod, shapes))


def available() -> int | None:
    """Bytes of memory that the system can still give, or has at all; None if it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _number(settings: TrainerSettings) -> int:
    """Bytes of a number in a matrix product."""
    return FLOAT if settings.precision == "fp32" else 2


def _tensors(hparams: HParams, settings: TrainerSettings) -> int:
    """Weights, their gradients, what the optimizer remembers, and weights rounded to 16 bits."""
    shapes = hparams.tensor_shapes()
    everything = sum(math.prod(shape) for shape in shapes.values())
    trained = [shapes[name] for name in settings.trained_tensors(hparams)]
    changed = sum(map(math.prod, trained))
    total = everything + changed  # with gradients
    slots = SLOTS[settings.optimizer] + bool(settings.momentum)
    if settings.lora_rank:
        total += changed  # the matrices that the factors add to
        changed = trained_parameters(hparams, settings)
        total += 2 * changed
    total += slots * changed
    rounded = 0 if _number(settings) == FLOAT else everything
    return FLOAT * total + 2 * rounded


def _kept_by_block(hparams: HParams, settings: TrainerSettings, window: int) -> int:
    """Bytes for each token that a block keeps for its gradient."""
    width = hparams.n_embd
    stream = 2 * width * FLOAT  # before either half
    # Both norms, queries, keys and values, what was attended to, the MLP before and after GELU.
    between = (2 + 3 + 1 + 4 + 4) * width
    # Each token looks at half of the others; a little more, for it is done in pieces.
    probabilities = hparams.n_head * min(window, (window + LOSS_ROWS) // 2)
    kept = stream + (between + probabilities) * _number(settings)
    if settings.dropout:
        # The masks, as truth values, and what they were applied to.
        kept += 2 * width * FLOAT + probabilities * (1 + _number(settings))
    return kept


def _head(hparams: HParams, settings: TrainerSettings, rows: int) -> int:
    """Logits of a slice with their gradient, and the embeddings' gradient as it is summed up."""
    slice_ = min(rows, LOSS_ROWS * FLOAT // _number(settings))
    logits = slice_ * hparams.n_vocab * (FLOAT + 2 * _number(settings))
    return logits + 2 * hparams.n_vocab * hparams.n_embd * _number(settings)


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Make of running out of memory a sentence with the flags that help.

    Raises:
        UserError: memory has run out.
    """
    import tensorflow as tf

    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise UserError(
            "There is not enough memory for this training; what was saved is kept, and less is "
            f"needed with {REMEDIES}."
        ) from error
