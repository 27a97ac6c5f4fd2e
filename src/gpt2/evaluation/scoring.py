"""Log-probability, rank and entropy of each token of a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gpt2 import forward, model
from gpt2.data.samplers import Batch
from gpt2.errors import not_finite
from gpt2.evaluation.batch_parts import Batches, all_batches
from gpt2.evaluation.windows import Window, WindowSettings
from gpt2.forward import graph
from gpt2.hparams import HParams

# Rows of logits that are computed at once; 103 MB at 50,257 tokens.
HEAD_ROWS = 512
# Texts that are sorted by length together, so that a batch needs little padding.
TEXTS = 128
# Tokens in a batch by default. Larger batches are not faster.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Scores:
    """Scores of all tokens of a text but the first; arrays [T - 1].

    Attributes:
        nats: negative log-probabilities in nats, float32.
        ranks: number of tokens with a higher probability, so 0 is the most probable; int32.
        entropies: entropies of the predicted distributions in nats, float32.
        content_ranks: as `ranks`, without counting the scorer's stop tokens; int32.
    """

    nats: np.ndarray
    ranks: np.ndarray
    entropies: np.ndarray
    content_ranks: np.ndarray


class Scorer:
    """Computes the scores of texts without holding the logits of a whole batch in memory."""

    def __init__(
        self,
        weights: model.Weights,
        hparams: HParams,
        batch_size: int | None = None,
        stop_tokens: Sequence[int] = (),
        batches: Batches = all_batches,
    ):
        """Prepare.

        Args:
            weights: arrays, tensors or variables.
            batch_size: windows of full length in a batch; there are more of shorter ones, with as
                many tokens together. It does not change the results.
            stop_tokens: ids that `Scores.content_ranks` does not count.
            batches: decides which batches are computed here, and has the others.
        """
        self._batches = batches
        # A graph refers to tensors, but embeds a copy of an array at each use.
        self._weights = {name: tf.convert_to_tensor(weight) for name, weight in weights.items()}
        self._hparams = hparams
        self._batch_size = batch_size
        self._content = tf.constant(~np.isin(np.arange(hparams.n_vocab), stop_tokens))
        self._graphs: dict[tuple[int, int], Callable[[tf.Tensor], tf.Tensor]] = {}  # by shape
        self._read_endings = graph(
            self._read_all_endings,
            input_signature=[
                tf.TensorSpec([1, None], tf.int32),
                tf.TensorSpec([None] * 2, tf.int32),
            ],
        )

    def score(
        self,
        texts: Iterable[np.ndarray],
        cut: WindowSettings | None = None,
        progress: Callable[[int], object] = lambda tokens: None,
    ) -> Iterator[Scores]:
        """Yield the scores of each text, in order.

        Args:
            texts: ids, integer arrays [T]; texts of fewer than two tokens have no scores.
            cut: window and stride; None for consecutive windows of n_ctx tokens.
            progress: called with the number of newly predicted tokens.

        Raises:
            UserError: a score is not finite.
        """
        cut = cut or WindowSettings.of(self._hparams.n_ctx)
        group: list[np.ndarray] = []
        for text in texts:
            group.append(text)
            if len(group) == TEXTS:
                yield from self._score_group(group, cut, progress)
                group = []
        yield from self._score_group(group, cut, progress)

    def score_endings(
        self, beginning: np.ndarray, endings: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the nats of each token of several endings of a text, computing the text once.

        Args:
            beginning: ids [S], at least one.
            endings: ids [T] each, with S + T <= n_ctx + 1.

        Returns:
            float32 [T] for each ending.

        Raises:
            UserError: one is not finite.
        """
        tokens = np.zeros((len(endings), 1 + max(map(len, endings))), np.int32)
        tokens[:, 0] = beginning[-1]
        for row, ending in zip(tokens, endings, strict=True):
            row[1 : 1 + len(ending)] = ending
        prefix = np.asarray(beginning[:-1], np.int32)[None]

        def read() -> np.ndarray:
            return _finite(self._read_endings(tf.constant(prefix), tf.constant(tokens)).numpy())

        nats = self._batches(read, (tokens.shape[0], tokens.shape[1] - 1))
        return [row[: len(ending)] for row, ending in zip(nats, endings, strict=True)]

    def _score_group(
        self, texts: list[np.ndarray], cut: WindowSettings, progress: Callable[[int], object]
    ) -> list[Scores]:
        results = [np.empty((4, max(len(text) - 1, 0)), np.float32) for text in texts]
        batch_size = self._batch_size or max(1, BATCH_TOKENS // cut.window)
        places = [
            _Place(number, window)
            for number, text in enumerate(texts)
            for window in cut.windows(len(text) - 1)
        ]
        for batch, shape in _batches(places, cut.window, batch_size):
            tokens = np.zeros((shape[0], shape[1] + 1), np.int32)
            for inputs, (number, (start, _, end)) in zip(tokens, batch, strict=False):
                inputs[: end - start + 1] = texts[number][start : end + 1]
            read = functools.partial(self._read, tokens)
            found = self._batches(read, (4, shape[0] * shape[1])).reshape(4, *shape)
            for row, (number, (start, counted, end)) in enumerate(batch):
                results[number][:, counted:end] = found[:, row, counted - start : end - start]
                progress(end - counted)
        return [
            Scores(nats, ranks.astype(np.int32), entropies, content.astype(np.int32))
            for nats, ranks, entropies, content in results
        ]

    def _read(self, tokens: np.ndarray) -> np.ndarray:
        """Run `_read_batch` in a graph for this shape."""
        # TensorFlow warns of slow retracing if one function is called with many shapes.
        if tokens.shape not in self._graphs:
            spec = tf.TensorSpec(tokens.shape, tf.int32)
            self._graphs[tokens.shape] = graph(self._read_batch).get_concrete_function(spec)
        return _finite(self._graphs[tokens.shape](tf.constant(tokens)).numpy())

    def _read_batch(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return the four arrays of `Scores`, stacked: int32 [B, T + 1] -> float32 [4, N]."""
        x, table = forward.hidden_states(self._weights, self._hparams, Batch.of_rows(tokens))
        return head_scores(x, table, tf.reshape(tokens[:, 1:], [-1]), self._content)

    def _read_all_endings(self, prefix: tf.Tensor, endings: tf.Tensor) -> tf.Tensor:
        """Return the nats of all tokens of some endings but the first, float32 [B, T].

        Args:
            prefix: int32 [1, S], computed once.
            endings: int32 [B, T + 1].
        """
        hparams, weights = self._hparams, self._weights
        cache: list[tuple[tf.Tensor, tf.Tensor]] = []  # keys and values of the prefix, by layer

        def attend_and_cache(layer: int, *qkv: tf.Tensor) -> tf.Tensor:
            cache.append(qkv[1:])
            return model.causal_attention(layer, *qkv)

        before = tf.shape(prefix)[1]
        model.hidden_states(weights, hparams, prefix, tf.range(before), attend_and_cache)
        rows, length = tf.unstack(tf.shape(endings) - [0, 1])
        visible = tf.range(before + length) <= before + tf.range(length)[:, None]  # [T, S + T]

        def attend_to_cache(layer: int, query: tf.Tensor, *own: tf.Tensor) -> tf.Tensor:
            key, value = (
                tf.concat([tf.repeat(old, rows, axis=0), new], axis=2)
                for old, new in zip(cache[layer], own, strict=True)
            )
            return model.scaled_dot_product(query, key, value, visible)

        positions = before + tf.range(length)
        x = model.hidden_states(weights, hparams, endings[:, :-1], positions, attend_to_cache)
        logits = model.head(weights, tf.reshape(x, [-1, hparams.n_embd]))
        labels = tf.reshape(endings[:, 1:], [-1])
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reshape(nats, [rows, length])


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise not_finite()
    return scores


class _Place(NamedTuple):
    """A window and the number of its text."""

    text: int
    window: Window


def _batches(
    places: Sequence[_Place], window: int, batch_size: int
) -> Iterator[tuple[list[_Place], tuple[int, int]]]:
    """Yield batches of windows of similar length, each with its shape [rows, length].

    Few shapes are used, because each needs a graph of its own: the length is the window, its half,
    its quarter and so on; the rows fill the batch, or are a power of two if too few are left.
    """
    places = sorted(places, key=lambda place: place.window.start - place.window.end)
    filled = 0  # the last length of which there was a full batch
    done = 0
    while done < len(places):
        length, longest = window, places[done].window.end - places[done].window.start
        while longest <= -(-length // 2) < length:
            length = -(-length // 2)
        rows = batch_size * window // length
        batch = places[done : done + rows]
        done += len(batch)
        if len(batch) == rows:
            filled = length
        few = min(rows, 1 << (len(batch) - 1).bit_length())
        yield batch, (rows if length == filled else few, length)


def head_scores(
    x: tf.Tensor, table: tf.Tensor, targets: tf.Tensor, content: tf.Tensor
) -> tf.Tensor:
    """Return the scores of targets, computing the logits for a slice of rows at a time.

    Args:
        x: the final layer's normalized output, float32 [N, C]; N is static.
        table: the token embeddings, float32 [V, C].
        targets: int32 [N].
        content: whether a token is not a stop token, bool [V].

    Returns:
        The arrays of `Scores`, float32 [4, N].
    """
    found: list[tf.Tensor] = []
    for start in range(0, x.shape[0], HEAD_ROWS):
        rows = slice(start, start + HEAD_ROWS)
        with tf.control_dependencies(found[-1:]):  # or several slices would be computed at once
            inputs = tf.identity(x[rows])
        logits = tf.matmul(inputs, table, transpose_b=True)  # [rows, V]
        found.append(_scores_of_logits(logits, targets[rows], content))
    return tf.concat(found, axis=1)


@graph(jit_compile=True)
def _scores_of_logits(logits: tf.Tensor, targets: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
    """Return the arrays of `Scores`: float32 [N, V], int32 [N], bool [V] -> float32 [4, N]."""
    scores = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
    exponentials = tf.exp(scores)
    total = tf.reduce_sum(exponentials, axis=-1)
    target = tf.gather(scores, targets, batch_dims=1)
    likelier = scores > target[:, None]
    ranks = tf.reduce_sum(tf.cast(likelier, tf.float32), axis=-1)
    content_ranks = tf.reduce_sum(tf.cast(likelier & content, tf.float32), axis=-1)
    mean = tf.reduce_sum(exponentials * scores, axis=-1) / total
    log_total = tf.math.log(total)
    return tf.stack([log_total - target, ranks, log_total - mean, content_ranks])
