"""Engines: tokens in, scores of the next token out, the memory of earlier tokens inside."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams


class Engine(Protocol):
    """What generation needs of a model.

    The rows of a batch end at the same place: shorter ones are padded on their left, and the
    padding is neither looked at nor counted as a position.
    """

    hparams: HParams

    def start(self, padding: np.ndarray, capacity: int) -> None:
        """Forget all tokens.

        Args:
            padding: how many of each row's first tokens are padding, int32 [B].
            capacity: how many tokens a row will get at most, padding included.
        """

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        """Take in the next tokens of each row, int32 [B, T].

        Returns:
            The scores of what follows the last of them, float32 [B, V].
        """


class TensorFlowEngine:
    """The model as a TensorFlow function, on any device.

    Keys and values lie in variables of a fixed size that each step writes into, so that neither
    memory nor the time of a step depends on how many texts came before.
    """

    def __init__(self, weights: model.Weights, hparams: HParams):
        self.hparams = hparams
        # A graph refers to tensors and variables, but takes in a copy of an array at each use.
        self._weights = {
            name: tf.constant(weight) if isinstance(weight, np.ndarray) else weight
            for name, weight in weights.items()
        }
        shape = [None, hparams.n_head, None, hparams.n_embd // hparams.n_head]  # [B, H, S, D]
        empty = tf.zeros([1, shape[1], 1, shape[3]])
        self._keys, self._values = (
            [tf.Variable(empty, shape=shape, trainable=False) for _ in range(hparams.n_layer)]
            for _ in range(2)
        )
        self._padding = tf.zeros([1], tf.int32)
        self._fed = 0  # tokens in each row by now

    def start(self, padding: np.ndarray, capacity: int) -> None:
        """See `Engine.start`."""
        rows, heads, room, width = self._keys[0].value().shape
        if rows != len(padding) or room < capacity:
            empty = tf.zeros([len(padding), heads, capacity, width])
            for variable in (*self._keys, *self._values):
                variable.assign(empty)
        self._padding = tf.constant(padding, tf.int32)
        self._fed = 0

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        """See `Engine.feed`."""
        logits = self._step(tf.constant(tokens, tf.int32), tf.constant(self._fed), self._padding)
        self._fed += tokens.shape[1]
        return logits.numpy()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def _step(self, tokens: tf.Tensor, fed: tf.Tensor, padding: tf.Tensor) -> tf.Tensor:
        end = fed + tf.shape(tokens)[1]
        places = tf.range(fed, end)  # [T]
        positions = tf.maximum(places - padding[:, None], 0)  # [B, T]
        earlier = tf.range(end)  # [S]
        visible = (earlier <= places[:, None]) & (earlier >= padding[:, None, None])  # [B, T, S]

        def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
            keys, values = self._keys[layer], self._values[layer]
            with tf.control_dependencies(
                [keys[:, :, fed:end].assign(key), values[:, :, fed:end].assign(value)]
            ):
                return model.scaled_dot_product(
                    query, keys[:, :, :end], values[:, :, :end], visible[:, None]
                )

        x = model.hidden_states(self._weights, self.hparams, tokens, positions, attend)
        return model.head(self._weights, x[:, -1])
