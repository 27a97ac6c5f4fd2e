"""The training loss, next-token cross-entropy, and dynamic loss scaling for float16."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from gpt2 import forward, model
from gpt2.data.samplers import Batch
from gpt2.forward import ComputeSettings
from gpt2.hparams import HParams


def next_token_loss(
    weights: model.Weights,
    hparams: HParams,
    batch: Batch,
    settings: ComputeSettings = ComputeSettings(),
    dropout_seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the mean cross-entropy of the next token in nats, a float32 scalar.

    Args:
        batch: of arrays or tensors; targets that are negative are ignored.
        dropout_seed: integers [2]; required if `settings.dropout` is not 0.
    """
    x, embeddings = forward.hidden_states(weights, hparams, batch, settings, dropout_seed)
    targets = tf.reshape(batch.targets, [-1])  # [B*T]
    dtype = tf.as_dtype(settings.precision)
    return forward.cross_entropy(x, embeddings, targets, dtype, settings.gradient)


class LossScale:
    """Dynamic loss scaling: the factor on the loss that keeps float16 gradients in range.

    It is halved when a gradient overflows and doubled after `GROWTH_INTERVAL` steps in a row
    without overflow.

    Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.2.
    """

    INITIAL, MINIMUM, GROWTH_INTERVAL = 2.0**15, 1.0, 2000

    def __init__(self) -> None:
        self.scale = self.INITIAL
        self._good_steps = 0

    def succeeded(self) -> None:
        """Record a step without overflow."""
        self._good_steps += 1
        if self._good_steps == self.GROWTH_INTERVAL:
            self.scale *= 2
            self._good_steps = 0

    def lower(self) -> bool:
        """Halve the scale after an overflow; return False if it is at its minimum."""
        self._good_steps = 0
        if self.scale <= self.MINIMUM:
            return False
        self.scale /= 2
        return True

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The state to save; all names begin with "loss_scale/"."""
        return {
            "loss_scale/scale": np.array(self.scale, np.float32),
            "loss_scale/good_steps": np.array(self._good_steps, np.int64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned."""
        self.scale = float(state["loss_scale/scale"])
        self._good_steps = int(state["loss_scale/good_steps"])
