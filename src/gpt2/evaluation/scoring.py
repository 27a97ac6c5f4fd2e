"""What a model makes of each token of a text: its likelihood, its rank, how sure the model was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gpt2 import forward, model
from gpt2.evaluation.windows import Window, WindowSettings
from gpt2.forward import graph
from gpt2.hparams import HParams

# Rows whose logits exist at once; at 50,257 tokens 103 MB.
HEAD_ROWS = 512
# Texts that are sorted by length together, so that those of a batch are about as long.
TEXTS = 128
# Tokens that are read at once if nothing else is said. More are no faster.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Scores:
    """Of each token but the first of a text; arrays of shape [tokens - 1].

    Attributes:
        nats: minus the log-probability, float32.
        ranks: how many tokens were likelier; 0 is the likeliest; int32.
        entropies: of the model's whole prediction in nats, float32.
        content_ranks: as ranks, but the scorer's stop tokens are not counted; int32.
    """

    nats: np.ndarray
    ranks: np.ndarray
    entropies: np.ndarray
    content_ranks: np.ndarray


class Scorer:
    """A model at reading. The logits of no more than a few rows exist at once."""

    def __init__(
        self,
        weights: model.Weights,
        hparams: HParams,
        batch_size: int | None = None,
        stop_tokens: Sequence[int] = (),
    ):
        """Prepare.

        Args:
            weights: arrays, tensors or variables.
            batch_size: windows of full length that are read at once; of short ones there are as
                many as have together as many tokens. It changes no result.
            stop_tokens: ids that `Scores.content_ranks` does not count.
        """
        # A graph refers to tensors, but takes in a copy of an array at each use.
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
        """The scores of each text, in their order.

        Args:
            texts: ids, integer arrays of shape [tokens]; a text of less than two has no scores.
            cut: windows of the model's full length that follow one another if not given.
            progress: called with the number of tokens that have been predicted.
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
        """The nats of each token of several endings of one text; the beginning is read once.

        Args:
            beginning: ids [tokens], at least one.
            endings: ids [tokens] each; with the beginning at most n_ctx + 1 of them.

        Returns:
            float32 [tokens] for each ending.
        """
        tokens = np.zeros((len(endings), 1 + max(map(len, endings))), np.int32)
        tokens[:, 0] = beginning[-1]
        for row, ending in zip(tokens, endings, strict=True):
            row[1 : 1 + len(ending)] = ending
        prefix = np.asarray(beginning[:-1], np.int32)[None]
        nats = self._read_endings(tf.constant(prefix), tf.constant(tokens)).numpy()
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
            for row, (number, (start, _, end)) in zip(tokens, batch, strict=False):
                row[: end - start + 1] = texts[number][start : end + 1]
            found = self._read(tokens).reshape(4, *shape)
            for row, (number, (start, counted, end)) in enumerate(batch):
                results[number][:, counted:end] = found[:, row, counted - start : end - start]
                progress(end - counted)
        return [
            Scores(nats, ranks.astype(np.int32), entropies, content.astype(np.int32))
            for nats, ranks, entropies, content in results
        ]

    def _read(self, tokens: np.ndarray) -> np.ndarray:
        """See `_read_batch`."""
        # One by one, since of a function with many shapes TensorFlow warns that it is slow.
        if tokens.shape not in self._graphs:
            spec = tf.TensorSpec(tokens.shape, tf.int32)
            self._graphs[tokens.shape] = graph(self._read_batch).get_concrete_function(spec)
        return self._graphs[tokens.shape](tf.constant(tokens)).numpy()

    def _read_batch(self, tokens: tf.Tensor) -> tf.Tensor:
        """What `Scores` holds, side by side: int32 [B, T + 1] -> float32 [4, N]."""
        x, table = forward.hidden_states(self._weights, self._hparams, tokens[:, :-1])
        return head_scores(x, table, tf.reshape(tokens[:, 1:], [-1]), self._content)

    def _read_all_endings(self, prefix: tf.Tensor, endings: tf.Tensor) -> tf.Tensor:
        """Nats of endings [B, T + 1] but for their first tokens, after a prefix [1, S]: [B, T]."""
        hparams, weights = self._hparams, self._weights
        memory: list[tuple[tf.Tensor, tf.Tensor]] = []  # keys and values of the prefix, by layer

        def remember(layer: int, *qkv: tf.Tensor) -> tf.Tensor:
            memory.append(qkv[1:])
            return model.causal_attention(layer, *qkv)

        before = tf.shape(prefix)[1]
        model.hidden_states(weights, hparams, prefix, tf.range(before), remember)
        rows, length = tf.unstack(tf.shape(endings) - [0, 1])
        visible = tf.range(before + length) <= before + tf.range(length)[:, None]  # [T, S + T]

        def look_back(layer: int, query: tf.Tensor, *own: tf.Tensor) -> tf.Tensor:
            key, value = (
                tf.concat([tf.repeat(old, rows, axis=0), new], axis=2)
                for old, new in zip(memory[layer], own, strict=True)
            )
            return model.scaled_dot_product(query, key, value, visible)

        positions = before + tf.range(length)
        x = model.hidden_states(weights, hparams, endings[:, :-1], positions, look_back)
        logits = model.head(weights, tf.reshape(x, [-1, hparams.n_embd]))
        labels = tf.reshape(endings[:, 1:], [-1])
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reshape(nats, [rows, length])


class _Place(NamedTuple):
    text: int
    window: Window


def _batches(
    places: Sequence[_Place], window: int, batch_size: int
) -> Iterator[tuple[list[_Place], tuple[int, int]]]:
    """Windows of about the same length together, each batch with its shape [rows, length].

    There are few shapes, since each is a graph to be built: lengths are the window's, its half, its
    quarter and so on; rows as many as fill the batch, or a power of two if there are never so many.
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
    """What `Scores` holds of targets, the logits existing a slice of rows at a time.

    Args:
        x: the final layer's normalised output, float32 [N, C]; N is known.
        table: the embeddings, float32 [V, C].
        targets: int32 [N].
        content: which tokens are no stop tokens, bool [V].

    Returns:
        float32 [4, N].
    """
    found: list[tf.Tensor] = []
    for start in range(0, x.shape[0], HEAD_ROWS):
        rows = slice(start, start + HEAD_ROWS)
        with tf.control_dependencies(found[-1:]):  # one slice after the other
            inputs = tf.identity(x[rows])
        logits = tf.matmul(inputs, table, transpose_b=True)  # [rows, V]
        found.append(_scores_of_logits(logits, targets[rows], content))
    return tf.concat(found, axis=1)


@graph(jit_compile=True)
def _scores_of_logits(logits: tf.Tensor, targets: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
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
