"""What each head of a model looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams


def attention(weights: model.Weights, hparams: HParams, tokens: Sequence[int]) -> np.ndarray:
    """How much each head of each layer looks, from each token, at that token and those before it.

    Vaswani et al. 2017, equation 1, without the values: what the softmax gives.

    Args:
        tokens: ids [T], from one to n_ctx of them.

    Returns:
        float32 [L, H, T, T]: layer, head, from, to. Each row sums to 1.
    """
    visible = model.causally_visible(len(tokens))
    layers = []

    def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        probabilities = model.attention_probabilities(query, key, visible)  # [1, H, T, T]
        layers.append(probabilities[0].numpy())
        return tf.matmul(probabilities, value)

    row = tf.constant([tokens], tf.int32)
    model.hidden_states(weights, hparams, row, tf.range(len(tokens)), attend)
    return np.stack(layers)
