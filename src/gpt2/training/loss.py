"""The training loss: mean cross-entropy of the next token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from gpt2 import forward, model
from gpt2.forward import ComputeSettings
from gpt2.hparams import HParams


def next_token_loss(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    computation: ComputeSettings = ComputeSettings(),
    dropout_seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy in nats, a float32 scalar.

    Args:
        inputs: what the model sees, int32 [B, T]; negative ids are read as token 0.
        targets: the token that follows each of them, int32 [B, T]; negative ids do not count.
        dropout_seed: integers [2] that the dropout follows from.
    """
    dtype = tf.as_dtype(computation.precision)
    x, embeddings = forward.hidden_states(weights, hparams, inputs, computation, dropout_seed)
    targets = tf.reshape(targets, [-1])
    return forward.cross_entropy(x, embeddings, targets, dtype, computation.gradient)


class LossScale:
    """What the loss is multiplied by before its gradients are computed.

    Micikevicius et al. 2018, section 3.2, dynamic: halved when a gradient is too large for
    float16, doubled after so many steps in a row without that. The names of its state begin with
    "loss_scale/".
    """

    FIRST, LEAST, PATIENCE = 2.0**15, 1.0, 2000

    def __init__(self) -> None:
        self.scale = self.FIRST
        self._good_steps = 0

    def succeeded(self) -> None:
        """Note a step whose gradients were all finite."""
        self._good_steps += 1
        if self._good_steps == self.PATIENCE:
            self.scale *= 2
            self._good_steps = 0

    def lower(self) -> bool:
        """Halve the scale after a gradient that was not finite; False if it is too low for that."""
        self._good_steps = 0
        if self.scale <= self.LEAST:
            return False
        self.scale /= 2
        return True

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All that it remembers, by name."""
        return {
            "loss_scale/scale": np.array(self.scale, np.float32),
            "loss_scale/good_steps": np.array(self._good_steps, np.int64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        self.scale = float(state["loss_scale/scale"])
        self._good_steps = int(state["loss_scale/good_steps"])
