"""How many nats a model spends on a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams


def negative_log_likelihood(
    weights: model.Weights,
    hparams: HParams,
    tokens: np.ndarray,
    progress: Callable[[Iterable], Iterable] = lambda windows: windows,
) -> float:
    """The summed nats of every token but the first.

    The text is cut into windows of n_ctx tokens that share no prediction: the last token of each
    is the first of the next.

    Args:
        tokens: ids, an integer array of shape [tokens], at least two.
    """
    # A graph refers to tensors, but takes in a copy of an array at each use.
    weights = {name: tf.convert_to_tensor(weight) for name, weight in weights.items()}

    @tf.function(reduce_retracing=True)
    def nats(window: tf.Tensor) -> tf.Tensor:
        logits = model.logits(weights, hparams, window[:, :-1])
        return tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=window[:, 1:], logits=logits)
        )

    total = 0.0
    for start in progress(range(0, len(tokens) - 1, hparams.n_ctx)):
        window = tokens[start : start + hparams.n_ctx + 1].astype(np.int32)
        total += float(nats(tf.constant(window[None])))
    return total


def bits_per_byte(nats: float, size: int) -> float:
    """Nats spent on a text of `size` bytes, as bits per byte: comparable across vocabularies."""
    return nats / math.log(2) / size
