"""Attention probabilities of every head of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.errors import not_finite
from gpt2.hparams import HParams


def attention(weights: model.Weights, hparams: HParams, tokens: Sequence[int]) -> np.ndarray:
    """Return the attention probabilities of every head of every layer.

    Args:
        tokens: ids [T], 1 to n_ctx of them.

    Returns:
        float32 [L, H, T, T]: layer, head, query position, key position. Each row sums to 1.

    Raises:
        UserError: one is not finite.

    Source: Vaswani et al. 2017, equation 1 (the softmax).
    """
    visible = model.causally_visible(len(tokens))
    layers = []

    def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        probabilities = model.attention_probabilities(query, key, visible)  # [1, H, T, T]
        layers.append(probabilities[0].numpy())
        if not np.isfinite(layers[-1]).all():
            raise not_finite()
        return tf.matmul(probabilities, value)

    batch = tf.constant([tokens], tf.int32)
    model.hidden_states(weights, hparams, batch, tf.range(len(tokens)), attend)
    return np.stack(layers)
