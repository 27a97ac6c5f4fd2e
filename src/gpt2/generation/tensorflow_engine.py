"""The engine for any device: the model as a TensorFlow function over its own variables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams

FIRST_ROOM = 64  # places for tokens in each row at first; doubled when it is full


class TensorFlowEngine:
    """A model's weights, arrays or variables that may still be trained; see `Engine`.

    Keys and values lie in variables that each step writes into, so that neither memory nor the
    time of a step depends on how many texts came before.
    """

    def __init__(self, weights: model.Weights, hparams: HParams):
        self._hparams = hparams
        # A graph refers to tensors and variables, but takes in a copy of an array at each use.
        self._weights = {
            name: tf.constant(weight) if isinstance(weight, np.ndarray) else weight
            for name, weight in weights.items()
        }
        shape = [None, hparams.n_head, None, hparams.n_embd // hparams.n_head]  # [B, H, S, D]
        self._empty = tf.zeros([1, shape[1], min(FIRST_ROOM, hparams.n_ctx), shape[3]])
        self._keys, self._values = (
            [tf.Variable(self._empty, shape=shape, trainable=False) for _ in range(hparams.n_layer)]
            for _ in range(2)
        )
        self.lengths = np.zeros(1, np.int64)

    def reset(self, rows: int) -> None:
        """See `Engine.reset`."""
        if rows != len(self.lengths):
            empty = tf.repeat(self._empty, rows, axis=0)
            for variable in (*self._keys, *self._values):
                variable.assign(empty)
        self.lengths = np.zeros(rows, np.int64)

    def prefill(self, row: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.prefill`."""
        self.lengths[row] = 0
        self._make_room(len(tokens))
        logits = self._feed(tf.constant([tokens], tf.int32), tf.constant(row), tf.constant([0]))
        self.lengths[row] = len(tokens)
        return logits.numpy()[0]

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """See `Engine.decode`."""
        self._make_room(int(self.lengths.max()) + 1)
        column = tf.constant(tokens[:, None], tf.int32)
        logits = self._feed(column, tf.constant(0), tf.constant(self.lengths, tf.int32))
        self.lengths += 1
        return logits.numpy()

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        for variable in (*self._keys, *self._values):
            variable.assign(tf.gather(variable, sources))
        self.lengths = self.lengths[list(sources)]

    def _make_room(self, needed: int) -> None:
        room = self._keys[0].value().shape[2]
        if needed > room:
            while room < needed:
                room *= 2
            room = min(room, self._hparams.n_ctx)
            for variable in (*self._keys, *self._values):
                old = variable.value()
                variable.assign(tf.pad(old, [[0, 0], [0, 0], [0, room - old.shape[2]], [0, 0]]))

    @tf.function(
        autograph=False,  # which would take TensorFlow a second to read the code
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    def _feed(self, tokens: tf.Tensor, first: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
        """Feed tokens [R, T] to the rows from `first` on, which remember `starts` [R] tokens."""
        rows, length = tf.unstack(tf.shape(tokens))
        places = starts[:, None] + tf.range(length)  # [R, T]
        end = tf.reduce_max(starts) + length
        visible = tf.range(end) <= places[:, :, None]  # [R, T, S]

        def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
            keys, values = self._keys[layer], self._values[layer]

            def remember(row: tf.Tensor) -> tf.Tensor:
                start = starts[row]
                keys[first + row, :, start : start + length].assign(key[row])
                values[first + row, :, start : start + length].assign(value[row])
                return row + 1

            tf.while_loop(lambda row: row < rows, remember, [0])
            seen = (slice(first, first + rows), slice(None), slice(end))
            return model.scaled_dot_product(query, keys[seen], values[seen], visible[:, None])

        x = model.hidden_states(self._weights, self._hparams, tokens, places, attend)
        return model.head(self._weights, x[:, -1])
