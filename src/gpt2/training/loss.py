"""How well a model predicts each next token."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams


def next_token_loss(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    wrap_block: Callable[[Callable], Callable] = lambda block: block,
) -> tf.Tensor:
    """Mean cross-entropy in nats, a scalar.

    Args:
        inputs: what the model sees, int32 [B, T].
        targets: the token that follows each of them, int32 [B, T].
        wrap_block: see `model.hidden_states`.
    """
    positions = tf.range(tf.shape(inputs)[1])
    x = model.hidden_states(weights, hparams, inputs, positions, wrap_block=wrap_block)
    logits = model.head(weights, tf.reshape(x, [-1, hparams.n_embd]))  # [N, V]
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.reshape(targets, [-1]), logits=logits
        )
    )
