"""The engine for any device: the model as a TensorFlow function over its own variables."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams

INITIAL_CAPACITY = 64  # tokens of KV cache for each slot at first; doubled when a slot is full


class TensorFlowEngine:
    """An engine over arrays, or over variables that may still be trained; see `Engine`.

    The KV cache lies in variables that are written in place, so that memory and time per decode
    step do not depend on how many sequences were generated before.
    """

    def __init__(self, weights: model.Weights, hparams: HParams):
        self._hparams = hparams
        # A graph refers to tensors and variables, but embeds a copy of an array at each use.
        self._weights = {
            name: tf.constant(weight) if isinstance(weight, np.ndarray) else weight
            for name, weight in weights.items()
        }
        shape = [None, hparams.n_head, None, hparams.n_embd // hparams.n_head]  # [B, H, S, D]
        self._empty = tf.zeros([1, shape[1], min(INITIAL_CAPACITY, hparams.n_ctx), shape[3]])
        self._keys, self._values = (
            [tf.Variable(self._empty, shape=shape, trainable=False) for _ in range(hparams.n_layer)]
            for _ in range(2)
        )
        self.lengths = np.zeros(1, np.int64)
        self.slot_bytes = 2 * hparams.n_layer * hparams.n_ctx * hparams.n_embd * 4

    def reset(self, slots: int) -> None:
        """See `Engine.reset`."""
        if slots != len(self.lengths):
            empty = tf.repeat(self._empty, slots, axis=0)
            for variable in (*self._keys, *self._values):
                variable.assign(empty)
        self.lengths = np.zeros(slots, np.int64)

    def reuse(self, slot: int, tokens: Sequence[int]) -> int:
        """See `Engine.reuse`. Nothing is: sums over other shapes would be rounded differently."""
        self.lengths[slot] = 0
        return 0

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """See `Engine.prefill`."""
        self.lengths[slot] = start
        return self._append(slot, np.array([tokens]), 1)[0, 0]

    def score(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """See `Engine.score`."""
        self.lengths[slot] = start
        return self.extend(slot, tokens)

    def prefill_slices(
        self, slot: int, tokens: Sequence[int], start: int = 0, scored: bool = False
    ) -> Generator[None, None, np.ndarray]:
        """See `Engine.prefill_slices`. The whole graph is one slice."""
        logits = (
            self.score(slot, tokens, start) if scored else self.prefill(slot, tokens, start)[None]
        )
        yield
        return logits

    def decode(self, tokens: np.ndarray, slots: Sequence[int] | None = None) -> np.ndarray:
        """See `Engine.decode`. Consecutive slots are one pass."""
        extended = np.arange(len(self.lengths)) if slots is None else np.array(slots)
        breaks = np.flatnonzero(np.diff(extended) != 1) + 1
        runs = zip(np.split(extended, breaks), np.split(tokens[:, None], breaks), strict=True)
        return np.concatenate([self._append(int(run[0]), rows, 1)[:, 0] for run, rows in runs])

    def extend(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.extend`."""
        return self._append(slot, np.array([tokens]), len(tokens))[0]

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        for variable in (*self._keys, *self._values):
            variable.assign(tf.gather(variable, sources))
        self.lengths = self.lengths[list(sources)]

    def _append(self, first: int, tokens: np.ndarray, count: int) -> np.ndarray:
        """Append tokens [R, T] to R consecutive slots; the last logits of each, [R, count, V]."""
        slots = slice(first, first + len(tokens))
        starts = self.lengths[slots]
        self._ensure_capacity(int(starts.max()) + tokens.shape[1])
        logits = self._feed(
            tf.constant(tokens, tf.int32),
            tf.constant(first, tf.int32),
            tf.constant(starts, tf.int32),
            tf.constant(count),
        )
        self.lengths[slots] += tokens.shape[1]
        return logits.numpy()

    def _ensure_capacity(self, needed: int) -> None:
        """Enlarge the KV cache so that each slot can hold `needed` tokens."""
        capacity = self._keys[0].value().shape[2]
        if needed > capacity:
            while capacity < needed:
                capacity *= 2
            capacity = min(capacity, self._hparams.n_ctx)
            for variable in (*self._keys, *self._values):
                old = variable.value()
                variable.assign(tf.pad(old, [[0, 0], [0, 0], [0, capacity - old.shape[2]], [0, 0]]))

    @tf.function(
        autograph=False,  # converting the code with autograph would take a second
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
    )
    def _feed(
        self, tokens: tf.Tensor, first: tf.Tensor, starts: tf.Tensor, count: tf.Tensor
    ) -> tf.Tensor:
        """Append tokens to consecutive slots and return the logits after the last ones.

        Args:
            tokens: int32 [R, T].
            first: the first of the R slots, int32 scalar.
            starts: tokens that each of them already holds, int32 [R].
            count: the number of last tokens, int32 scalar.

        Returns:
            float32 [R, count, V].
        """
        slots, length = tf.unstack(tf.shape(tokens))
        positions = starts[:, None] + tf.range(length)  # [R, T]
        end = tf.reduce_max(starts) + length
        visible = tf.range(end) <= positions[:, :, None]  # [R, T, S]

        def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
            keys, values = self._keys[layer], self._values[layer]

            def write(slot: tf.Tensor) -> tf.Tensor:
                start = starts[slot]
                keys[first + slot, :, start : start + length].assign(key[slot])
                values[first + slot, :, start : start + length].assign(value[slot])
                return slot + 1

            tf.while_loop(lambda slot: slot < slots, write, [0])
            cached = (slice(first, first + slots), slice(None), slice(end))
            return model.scaled_dot_product(query, keys[cached], values[cached], visible[:, None])

        x = model.hidden_states(self._weights, self._hparams, tokens, positions, attend)
        return model.head(self._weights, x[:, length - count :])
