"""Draw training batches from a dataset.

A sampler has no state: a batch is a function of the seed and the batch number.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpt2 import randomness
from gpt2.data.datasets import DocumentSet, TokenStream
from gpt2.data.packing import pack
from gpt2.errors import UserError

PADDING = -1  # fills a batch after the end of an example; as a target, nothing is predicted

# A document of at least this many windows gets one more if its windows could hardly move otherwise,
# which costs at most an eighth more computation.
_MANY = 8


class Batch(NamedTuple):
    """Sequences of token ids and what to predict.

    Attributes:
        inputs: int32 [B, T]; negative ids (padding) are read as token 0.
        targets: the token to predict after each input, int32 [B, T]; negative for none.
        positions: of each input in its example, int32 [B, T]; None if each row is one example.
        segments: number of each input's example in its row, int32 [B, T], negative for padding.
            Inputs attend only to their own example. None if each row is one example.
        reach: most inputs of an example, which bounds how far back attention goes; None for T.
    """

    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray | None = None
    segments: np.ndarray | None = None
    reach: int | None = None

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Batch:
        """Return the batch that predicts each token but the first of int32 rows [B, T + 1]."""
        return cls(rows[:, :-1], rows[:, 1:])

    @property
    def target_count(self) -> int:
        """Number of tokens to predict."""
        return int(np.count_nonzero(self.targets >= 0))

    @property
    def largest_token(self) -> int:
        """The largest token id."""
        return max(int(self.inputs.max()), int(self.targets.max()))

    def rows(self, rows: slice) -> Batch:
        """Return some of the rows."""
        fields: Any = (field[rows] if isinstance(field, np.ndarray) else field for field in self)
        return Batch(*fields)

    def examples(self) -> Iterator[Batch]:
        """Yield each example as a batch of its own, row by row."""
        for row in range(len(self.inputs)):
            if self.segments is None:
                yield self.rows(slice(row, row + 1))
                continue
            for segment in range(self.segments[row].max() + 1):
                places = self.segments[row] == segment
                yield Batch(self.inputs[row, places][None], self.targets[row, places][None])

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Return the rows of several batches of one sampler as one batch."""
        fields: list[Any] = []
        for values in zip(*batches, strict=True):
            fields.append(
                np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]
            )
        return cls(*fields)

    def fingerprint(self, start: int = 0) -> int:
        """Return the CRC-32 of the examples, without padding, after those of earlier batches."""
        for example in self.examples():
            inputs = example.inputs[0][: np.count_nonzero(example.inputs[0] != PADDING)]
            tokens = np.concatenate([inputs[:1], example.targets[0]])[: len(inputs) + 1]
            start = zlib.crc32(tokens.tobytes(), start)
            if (tokens[: len(inputs)] != inputs).any():  # some are not predicted
                start = zlib.crc32(inputs.tobytes(), start)
        return start


def make_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int, packing: bool = False
) -> StreamSampler | DocumentSampler:
    """Return the sampler for training.

    Args:
        dataset: what to draw from.
        n_ctx: context window of the model, in tokens.
        seed: random seed.
        packing: whether short documents share a sequence; see `DocumentSampler`.

    Raises:
        UserError: the dataset is too small.
    """
    if isinstance(dataset, TokenStream):
        return StreamSampler(dataset.chunks, n_ctx, seed)
    return DocumentSampler(dataset, n_ctx, seed, packing)


def make_validation_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int, packing: bool = False
) -> DocumentSampler:
    """Return the sampler for validation; see `make_sampler`.

    Its first `steps_per_epoch` batches cover the whole dataset; fewer are a random sample of it.
    """
    if isinstance(dataset, TokenStream):
        chunks = join_short(dataset.chunks, n_ctx + 1)
        places = np.array([(number, 0, len(chunk)) for number, chunk in enumerate(chunks)])
        source = np.zeros(len(chunks), np.int32)
        none = np.zeros(0, np.int32)
        dataset = DocumentSet(chunks, places.reshape(-1, 3), [""], source, [none], None)
        packing = False  # its examples are all as long as the context window
    return DocumentSampler(dataset, n_ctx, seed, packing)


def join_short(chunks: Iterable[np.ndarray], size: int) -> list[np.ndarray]:
    """Return the chunks, adjacent ones joined until each has at least `size` tokens.

    Without this, chunks shorter than a crop could not be drawn. Only if all chunks together are
    shorter is the result shorter. At most `2 * size` tokens of a long chunk are copied; the rest is
    a view.
    """
    joined: list[np.ndarray] = []
    pending: list[np.ndarray] = []
    length = 0  # tokens in `pending`
    for chunk in chunks:
        if pending and len(chunk) >= 2 * size:
            joined.append(np.concatenate([*pending, chunk[:size]]))
            joined.append(chunk[size:])
            pending, length = [], 0
        elif not pending and len(chunk) >= size:
            joined.append(chunk)
        else:
            pending.append(chunk)
            length += len(chunk)
            if length >= size:
                joined.append(np.concatenate(pending))
                pending, length = [], 0
    if length or (pending and not joined):
        last = joined.pop() if joined else pending[0][:0]
        if len(last) >= 2 * size:
            joined.append(last[:-size])
            last = last[-size:]
        joined.append(np.concatenate([last, *pending]))
    return joined


class StreamSampler:
    """Draws random crops of continuous text, each within one chunk.

    A chunk is drawn with a probability proportional to its length, each crop of it equally likely.
    """

    reach: int | None = None  # see `Batch`

    def __init__(self, chunks: Iterable[np.ndarray], n_ctx: int, seed: int):
        """Prepare the chunks; long ones are not copied.

        Args:
            chunks: token ids, each an integer array of shape [tokens].
            n_ctx: window in tokens; a smaller dataset gets a smaller window.
            seed: random seed.

        Raises:
            UserError: there are fewer than two tokens.
        """
        self.chunks = join_short(chunks, n_ctx + 1)
        self._ends = np.cumsum([len(chunk) for chunk in self.chunks], dtype=np.int64)
        self.total_size = int(self._ends[-1]) if len(self._ends) else 0
        if self.total_size < 2:
            raise _empty()
        # Each input token is followed by its target: T inputs take T + 1 tokens.
        self.window = min(n_ctx, max(map(len, self.chunks)) - 1)
        self._seed = seed

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches with as many predictions as the dataset has tokens."""
        return -(-self.total_size // (self.window * batch_size))

    def batch(self, number: int, size: int) -> Batch:
        """Return batch `number`, of shape [size, window]."""
        rows = [
            self.chunks[chunk][start : start + self.window + 1]
            for chunk, start in self._draw(number, size)
        ]
        return Batch.of_rows(np.stack(rows).astype(np.int32))

    def describe(self, number: int, size: int) -> list[str]:
        """Return where each example of that batch comes from, in words."""
        return [
            f"chunk {chunk}, tokens {start} to {start + self.window}"
            for chunk, start in self._draw(number, size)
        ]

    def token(self, number: int) -> int:
        """Return a random token of the dataset, to prompt a sample with."""
        random = randomness.generator(self._seed, randomness.PROMPT, number)
        at = int(random.integers(self.total_size))
        chunk = int(np.searchsorted(self._ends, at, side="right"))
        return int(self.chunks[chunk][at - int(self._ends[chunk])])  # an index from the end

    def _draw(self, number: int, size: int) -> list[tuple[int, int]]:
        """Return the chunk of each sequence, and its start in the chunk."""
        random = randomness.generator(self._seed, randomness.BATCH, number)
        drawn = random.integers(self.total_size, size=size)
        chunks = np.searchsorted(self._ends, drawn, side="right").tolist()
        crops = [len(self.chunks[chunk]) - self.window for chunk in chunks]
        return list(zip(chunks, random.integers(crops).tolist(), strict=True))


class DocumentSampler:
    """Draws examples from documents or lines, reshuffled in each epoch.

    A document that fits into the window is one example. A longer one is split into slightly
    overlapping windows that cover it, at positions that change with the epoch. An epoch contains
    every token of every document, most of them once. Every example starts with its control code;
    without codes, every document starts with `<|endoftext|>`, so that the model can be prompted
    with it alone. If the documents have masks, only completions are targets.

    With packing, a row of a batch has as many examples as fit. Which lengths share a row is
    computed once; in each epoch, examples of the same length are permuted among their places.
    """

    def __init__(self, documents: DocumentSet, n_ctx: int, seed: int, packing: bool = False):
        """Prepare the documents; their tokens are not copied.

        Args:
            documents: what to draw from.
            n_ctx: window in tokens; if all documents are shorter (with packing, if all together
                are shorter), the window is smaller.
            seed: random seed.
            packing: whether examples share a row. Otherwise each is padded to the window.

        Raises:
            UserError: no document has two tokens, or a control code fills half the window.
        """
        codes = [code[:] for code in documents.codes]
        for name, code in zip(documents.sources, codes, strict=True):
            if len(code) > n_ctx // 2:
                raise UserError(
                    f"The control code of {name} has {len(code)} tokens, more than half of the "
                    f"context window ({n_ctx}). Give the file a shorter name."
                )
        code_lengths = np.array(list(map(len, codes)), np.int64)[documents.source]
        led = (code_lengths == 0) & (documents.endoftext is not None)
        lengths = documents.lengths + led  # tokens of each document, <|endoftext|> included
        # Documents with nothing to predict are left out.
        kept = (documents.lengths > 0) & (lengths + code_lengths >= 2)
        if not kept.any():
            raise _empty()
        self._chunks, self._sources, self._codes = documents.chunks, documents.sources, codes
        self._masks = documents.masks
        self._places, self._source = documents.places[kept], documents.source[kept]
        self._endoftext, self._led, self._lengths = documents.endoftext, led[kept], lengths[kept]
        code_lengths = code_lengths[kept]
        self.total_size = int(documents.lengths[kept].sum())
        longest = int(min(n_ctx, (self._lengths + code_lengths).max() - 1))  # in predictions
        self._seed = seed
        # Per document: the tokens that fit into a window; the predictions that a window adds to the
        # previous one (its first token is predicted only after a code); and all predictions.
        self._room = longest + 1 - code_lengths
        self._stride = self._room - (code_lengths == 0)
        predicted = self._lengths - (code_lengths == 0)
        windows = -(-predicted // self._stride)
        fixed = windows * self._stride - predicted < self._stride // 2
        self._windows = windows + ((windows >= _MANY) & fixed)
        self._slack = self._windows * self._stride - predicted  # predictions made twice
        self._ends = np.cumsum(self._windows)
        self._token_ends = np.cumsum(documents.lengths[kept])
        self.reach: int | None = longest if packing else None
        self.window, self._row_count = longest, int(self._ends[-1])
        if packing:
            sizes = np.minimum(self._lengths, self._room) + code_lengths - 1
            self._sizes = np.repeat(sizes, self._windows)  # places that each example takes
            by_size = np.sort(self._sizes)[::-1]
            row = pack(by_size, n_ctx)
            filled = np.bincount(row, weights=by_size)
            self.window, self._row_count = int(filled.max()), len(filled)
            # The places of each row, row after row, are numbers into the examples by size.
            self._slots = np.argsort(row, kind="stable")
            self._row_ends = np.cumsum(np.bincount(row))
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may span two epochs

    @property
    def description(self) -> str:
        """The size of the dataset in words."""
        words = (
            f"{self.total_size:,} tokens in {len(self._places):,} documents or lines, which give "
            f"{self._ends[-1]:,} examples of up to {(self.reach or self.window) + 1:,} tokens"
        )
        if self.reach is not None:
            share = self._sizes.sum() / (self._row_count * self.window)
            words += (
                f", packed into {self._row_count:,} sequences of {self.window:,} tokens "
                f"({1 - share:.1%} padding)"
            )
        if self._masks is not None:
            counted = sum(
                np.count_nonzero(self._masks[chunk][begin:end])
                for chunk, begin, end in self._places.tolist()
            )
            words += f"; the loss is on the {counted:,} tokens of completions"
        return words

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches that contain every example."""
        return -(-self._row_count // batch_size)

    def batch(self, number: int, size: int) -> Batch:
        """Return batch `number`, of shape [size, window], filled up with `PADDING`."""
        shape = size, self.window
        inputs, targets, segments = (np.full(shape, PADDING, np.int32) for _ in range(3))
        positions = np.zeros(shape, np.int32)
        for row, examples in enumerate(self._rows(number, size)):
            begin = 0
            for segment, example in enumerate(examples):
                tokens, predicted = self._example(*example)
                end = begin + len(tokens) - 1
                # The last token is an input where a place is left, as in earlier versions.
                inputs[row, begin : end + 1] = tokens[: self.window - begin]
                targets[row, begin:end] = predicted[1:]
                positions[row, begin:end] = np.arange(end - begin)
                segments[row, begin:end] = segment
                begin = end
        if self.reach is None:
            return Batch(inputs, targets)
        return Batch(inputs, targets, positions, segments, self.reach)

    def describe(self, number: int, size: int) -> list[str]:
        """Return where each example of that batch comes from, in words, row by row."""
        words = []
        for document, begin, end in itertools.chain(*self._rows(number, size)):
            chunk, first, _ = self._places[document].tolist()
            begin, end = max(begin - self._led[document], 0), end - self._led[document]
            name = self._sources[self._source[document]]
            words.append(
                f"{f'{name}, ' if name else ''}document {document} (tokens {begin} to {end - 1} of "
                f"it, {first + begin} to {first + end - 1} of chunk {chunk})"
            )
        return words

    def token(self, number: int) -> int:
        """Return the first token of a random document, or of its control code."""
        random = randomness.generator(self._seed, randomness.PROMPT, number)
        at = int(random.integers(self.total_size))
        document = int(np.searchsorted(self._token_ends, at, side="right"))
        code = self._codes[self._source[document]]
        return int(code[0] if len(code) else self._tokens(document, 0, 1)[0])

    def _rows(self, number: int, size: int) -> list[list[tuple[int, int, int]]]:
        """Return the examples of each row: the document, and start and end in the document."""
        rows = []
        for position in range(number * size, (number + 1) * size):
            epoch, index = divmod(position, self._row_count)
            examples = self._examples(epoch, index)
            documents = np.searchsorted(self._ends, examples, side="right").tolist()
            rows.append(
                [
                    (document, *self._place(document, example, epoch))
                    for document, example in zip(documents, examples, strict=True)
                ]
            )
        return rows

    def _examples(self, epoch: int, index: int) -> list[int]:
        """Return the numbers of the examples in a row of an epoch."""
        rows, examples = self._order(epoch)
        row = int(rows[index])
        if examples is None:
            return [row]
        begin = self._row_ends[row - 1] if row else 0
        return examples[begin : self._row_ends[row]].tolist()

    def _place(self, document: int, example: int, epoch: int) -> tuple[int, int]:
        """Return start and end of an example in its document, a leading <|endoftext|> included."""
        length, room = int(self._lengths[document]), int(self._room[document])
        if length <= room:
            return 0, length
        # SeedSequence zero-pads its entropy, so document + 1 keeps the streams distinct.
        random = randomness.generator(self._seed, randomness.BATCH, epoch, document + 1)
        slack, stride = int(self._slack[document]), int(self._stride[document])
        # The slack is split between both ends, each getting at most one window.
        shift = int(random.integers(max(0, slack - stride), min(slack, stride) + 1))
        window = example - int(self._ends[document] - self._windows[document])
        begin = min(max(window * stride - shift, 0), length - room)
        return begin, begin + room

    def _example(self, document: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of an example, and the same with only those that are targets."""
        code = self._codes[self._source[document]]
        tokens = np.concatenate([code, self._tokens(document, begin, end)])
        if self._masks is None:
            return tokens, tokens
        led = self._led[document]
        chunk, first, _ = self._places[document].tolist()
        counted = np.zeros(len(tokens), bool)  # neither the code nor a leading <|endoftext|>
        counted[len(code) + (led and not begin) :] = self._masks[chunk][
            first + max(begin - led, 0) : first + end - led
        ]
        return tokens, np.where(counted, tokens, PADDING)

    def _tokens(self, document: int, begin: int, end: int) -> np.ndarray:
        """Return part of a document, a leading <|endoftext|> included."""
        chunk, first, _ = self._places[document].tolist()
        if not self._led[document]:
            return self._chunks[chunk][first + begin : first + end]
        tokens = self._chunks[chunk][first + max(begin - 1, 0) : first + end - 1]
        return tokens if begin else np.concatenate([[self._endoftext], tokens])

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the order of the rows and, with packing, the example at each of their places."""
        random = randomness.generator(self._seed, randomness.BATCH, epoch)
        rows = random.permutation(self._row_count)
        if self.reach is None:
            return rows, None
        examples = random.permutation(len(self._sizes))
        by_size = examples[np.argsort(-self._sizes[examples], kind="stable")]
        return rows, by_size[self._slots]


def _empty() -> UserError:
    return UserError("The dataset is empty. Training needs a text of at least two tokens.")
