"""How much memory a training will need."""

from __future__ import annotations

import math

from gpt2.hparams import HParams
from gpt2.training.settings import TrainerSettings

# What Python and TensorFlow take before there is a model, and the compiled passes of a training.
PROGRAM = 700_000_000  # bytes
FLOAT = 4  # bytes of a float32
# Tensors of a weight's size that an optimizer remembers; adafactor's rows and columns are small.
SLOTS = {"adam": 2, "adamw": 2, "sgd": 0, "adafactor": 0}
LOSS_ROWS = 256  # as in operations.py, which would load TensorFlow


def estimate(hparams: HParams, settings: TrainerSettings, batch_size: int, window: int) -> int:
    """Bytes that a training will need at its peak, to within about a fifth on a processor.

    Where several batches make a step, the sum of their gradients comes on top: as much again as
    the trained tensors.

    Args:
        batch_size: sequences in one batch.
        window: tokens in a sequence.
    """
    rows = batch_size * window
    block = rows * _kept_by_block(hparams, settings, window)
    if settings.memory_saving_gradients:
        # What goes into each block, and all of the one that is at work.
        blocks = hparams.n_layer * rows * hparams.n_embd * FLOAT + block
    else:
        blocks = hparams.n_layer * block
    return PROGRAM + _tensors(hparams, settings) + blocks + _head(hparams, settings, rows)


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
        changed = settings.lora_rank * sum(sum(shape[-2:]) for shape in trained)
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
    logits = min(rows, LOSS_ROWS) * hparams.n_vocab * (FLOAT + 2 * _number(settings))
    return logits + 2 * hparams.n_vocab * hparams.n_embd * _number(settings)
