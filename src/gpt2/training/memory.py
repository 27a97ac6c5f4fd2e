"""Memory of a training: the estimate of its peak, the available memory, and running out of it.

TensorFlow is not imported at the top: the estimate is shown before it is loaded.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.slices import ATTENTION_ROWS, LOSS_ROWS, band_rows
from gpt2.training.settings import TrainerSettings

# Bytes that Python, TensorFlow and its compiled functions use, whatever the model.
PROGRAM = 700_000_000
FLOAT = 4  # bytes of a float32
# Slots of a weight's size per optimizer; Adafactor's rows and columns are negligible.
SLOTS = {"adam": 2, "adamw": 2, "sgd": 0, "adafactor": 0}

REMEDIES = (
    "a lower --batch_size (and --accumulate_gradients for the same steps), "
    "--memory_saving_gradients, --optimizer adafactor or sgd, --only_train_transformer_layers, or "
    "--lora_rank 8"
)


def estimate(
    hparams: HParams,
    settings: TrainerSettings,
    batch_size: int,
    window: int,
    batches: int = 1,
    reach: int | None = None,
) -> int:
    """Return the peak memory of a training in bytes, to within about 20% on a CPU.

    Args:
        batch_size: sequences in a batch.
        window: tokens in a sequence.
        batches: batches in a step; with several, the sum of their gradients is kept.
        reach: tokens of the longest example in a packed sequence; None if examples are not packed.
    """
    rows = batch_size * window
    layer = rows * _layer_activations(hparams, settings, window, reach or window)
    if settings.memory_saving_gradients:
        # The input of each layer, and all activations of the layer being recomputed.
        activations = hparams.n_layer * rows * hparams.n_embd * FLOAT + layer
    else:
        activations = hparams.n_layer * layer
    sums = FLOAT * trained_parameters(hparams, settings) if batches > 1 else 0
    fixed = PROGRAM + _model_and_optimizer(hparams, settings)
    return fixed + sums + activations + _head(hparams, settings, rows)


def trained_parameters(hparams: HParams, settings: TrainerSettings) -> int:
    """Return the number of trained parameters: of the trained tensors, or of the LoRA factors."""
    shapes = [hparams.tensor_shapes()[name] for name in settings.trained_tensors(hparams)]
    if settings.lora_rank:
        return settings.lora_rank * sum(sum(shape[-2:]) for shape in shapes)
    return sum(map(math.prod, shapes))


def available() -> int | None:
    """Return the available memory in bytes, else the physical memory, or None if unknown."""
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


def used() -> int | None:
    """Return the memory that this process uses in bytes, or None if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on Linux
        return None


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Turn an out-of-memory error inside the `with` block into a UserError.

    Raises:
        UserError: memory ran out; the message lists the flags that reduce memory.
    """
    import tensorflow as tf

    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise UserError(
            "Out of memory: there is not enough memory for this training. Saved checkpoints are "
            f"kept. Reduce memory with {REMEDIES}."
        ) from error


def _number_size(settings: TrainerSettings) -> int:
    """Return the bytes of a number in matrix products and activations."""
    return FLOAT if settings.precision == "fp32" else 2


def _model_and_optimizer(hparams: HParams, settings: TrainerSettings) -> int:
    """Return the bytes of weights, gradients, optimizer slots and 16-bit copies of the weights."""
    shapes = hparams.tensor_shapes()
    parameters = sum(math.prod(shape) for shape in shapes.values())
    trained = sum(math.prod(shapes[name]) for name in settings.trained_tensors(hparams))
    floats = parameters + trained  # weights and gradients
    if settings.lora_rank:
        floats += trained  # the frozen matrices that the factors are added to
        trained = trained_parameters(hparams, settings)
        floats += 2 * trained  # factors and their gradients
    floats += (SLOTS[settings.optimizer] + bool(settings.momentum)) * trained
    copies = 0 if _number_size(settings) == FLOAT else parameters
    return FLOAT * floats + 2 * copies


def _layer_activations(hparams: HParams, settings: TrainerSettings, window: int, reach: int) -> int:
    """Return the bytes per token that a layer keeps for its backward pass."""
    size = hparams.n_embd
    residual = 2 * size * FLOAT  # before attention and before the MLP
    # Both norms; queries, keys and values; attention output; the MLP before and after GELU.
    activations = (2 + 3 + 1 + 4 + 4) * size
    probabilities = hparams.n_head * _keys_per_query(window, reach)
    kept = residual + (activations + probabilities) * _number_size(settings)
    if settings.dropout:
        # Masks of one byte per number, and the tensors after dropout.
        kept += 2 * size * FLOAT + probabilities * (1 + _number_size(settings))
    return kept


def _keys_per_query(window: int, reach: int) -> int:
    """Return the mean number of keys that `forward.causal_attention` keeps for a query."""
    if reach < window and (rows := band_rows(reach)):
        return 2 * rows
    kept = 0
    for start in range(0, window, ATTENTION_ROWS):
        end = min(start + ATTENTION_ROWS, window)
        kept += (end - start) * (end - max(0, start - reach + 1))
    return kept // window


def _head(hparams: HParams, settings: TrainerSettings, rows: int) -> int:
    """Return the bytes of a slice of logits, their gradients, and the embeddings' gradients."""
    number_size = _number_size(settings)
    slice_rows = min(rows, LOSS_ROWS * FLOAT // number_size)
    logits = slice_rows * hparams.n_vocab * (FLOAT + 2 * number_size)
    return logits + 2 * hparams.n_vocab * hparams.n_embd * number_size
