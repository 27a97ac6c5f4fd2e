"""How well a model predicts each next token."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gpt2 import model
from gpt2.data.sampler import PADDING
from gpt2.hparams import HParams


@dataclasses.dataclass(frozen=True)
class Computation:
    """How the forward and the backward pass are computed."""

    precision: str = "float32"  # of the matrix products; float32, bfloat16 or float16
    recompute: bool = False  # each block again in the backward pass
    dropout: float = 0.0


def hardware_precision() -> str:
    """The fastest precision that this machine has in hardware."""
    return "float32"


def next_token_loss(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    computation: Computation = Computation(),
    dropout_seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy in nats over the targets that are not PADDING, a float32 scalar.

    Args:
        inputs: what the model sees, int32 [B, T].
        targets: the token that follows each of them, int32 [B, T].
        dropout_seed: int64 [2], needed for dropout.
    """
    positions = tf.range(tf.shape(inputs)[1])
    wrap_block = tf.recompute_grad if computation.recompute else lambda block: block
    inputs = tf.maximum(inputs, 0)
    x = model.hidden_states(weights, hparams, inputs, positions, wrap_block=wrap_block)
    if computation.dropout:
        x = tf.nn.experimental.stateless_dropout(x, computation.dropout, dropout_seed)
    x = tf.reshape(x, [-1, hparams.n_embd])
    dtype = tf.as_dtype(computation.precision)
    logits = tf.matmul(tf.cast(x, dtype), tf.cast(weights["model/wte"], dtype), transpose_b=True)
    targets = tf.reshape(targets, [-1])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(targets, 0), logits=tf.cast(logits, tf.float32)
    )
    counted = tf.cast(targets != PADDING, tf.float32)
    return tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)
