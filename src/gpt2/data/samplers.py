"""Draws training batches from tokens.

A sampler has no position of its own: a batch is a function of the seed and the batch's number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from gpt2 import randomness
from gpt2.data.datasets import DocumentSet, TokenStream
from gpt2.errors import UserError

PADDING = -1  # in a batch, in the places past the end of an example

# From so many windows on, a document whose cuts could hardly move gets one more than would cover
# it: at most an eighth more to compute.
_MANY = 8


def make_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int
) -> StreamSampler | DocumentSampler:
    """The sampler to train with.

    Args:
        n_ctx: the longest input that the model takes.

    Raises:
        UserError: the dataset is too small.
    """
    if isinstance(dataset, TokenStream):
        return StreamSampler(dataset.chunks, n_ctx, seed)
    return DocumentSampler(dataset, n_ctx, seed)


def make_validation_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int
) -> DocumentSampler:
    """The sampler to validate with, whose first `steps_per_epoch` batches hold all of the dataset.

    Fewer are a fair choice from it. For arguments and errors see `make_sampler`.
    """
    if isinstance(dataset, TokenStream):
        chunks = join_short(dataset.chunks, n_ctx + 1)
        places = np.array([(number, 0, len(chunk)) for number, chunk in enumerate(chunks)])
        source = np.zeros(len(chunks), np.int32)
        none = np.zeros(0, np.int32)
        dataset = DocumentSet(chunks, places.reshape(-1, 3), [""], source, [none], None)
    return DocumentSampler(dataset, n_ctx, seed)


def join_short(chunks: Iterable[np.ndarray], size: int) -> list[np.ndarray]:
    """Join neighbouring chunks until each has at least `size` tokens.

    Short texts are so used in full, where a draw of whole crops would have to pass them over. Only
    when all chunks together are shorter does a shorter one come back. At most `2 * size` tokens of
    a long chunk are copied; the rest of it, if that is long itself, stays where it is.
    """
    joined: list[np.ndarray] = []
    pending: list[np.ndarray] = []
    length = 0  # of what is pending
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
    """Draws crops of continuous text, none across the border of two chunks.

    A chunk is drawn as often as it has tokens, and each crop of it equally often.
    """

    def __init__(self, chunks: Iterable[np.ndarray], n_ctx: int, seed: int):
        """Take in the chunks; none that is long is copied.

        Args:
            chunks: token ids, each an integer array of shape [tokens].
            n_ctx: the wished window; a smaller dataset gets a window of its own size.

        Raises:
            UserError: there are not even two tokens.
        """
        self.chunks = join_short(chunks, n_ctx + 1)
        self._ends = np.cumsum([len(chunk) for chunk in self.chunks], dtype=np.int64)
        self.total_size = int(self._ends[-1]) if len(self._ends) else 0
        if self.total_size < 2:
            raise _empty()
        # With every input goes the token after it: T inputs are T + 1 tokens.
        self.window = min(n_ctx, max(map(len, self.chunks)) - 1)
        self._seed = seed

    @property
    def description(self) -> str:
        """What there is, in words."""
        return f"{self.total_size:,} tokens, in crops of {self.window + 1:,}"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in which there are as many predictions as tokens in the dataset."""
        return -(-self.total_size // (self.window * batch_size))

    def batch(self, number: int, size: int) -> np.ndarray:
        """The batch of that number: int32, shape [size, window + 1]."""
        rows = [
            self.chunks[chunk][start : start + self.window + 1]
            for chunk, start in self._draw(number, size)
        ]
        return np.stack(rows).astype(np.int32)  # [B, T+1]

    def describe(self, number: int, size: int) -> list[str]:
        """Where each row of that batch is from, in words."""
        return [
            f"chunk {chunk}, tokens {start} to {start + self.window}"
            for chunk, start in self._draw(number, size)
        ]

    def token(self, number: int) -> int:
        """One token drawn from the whole dataset, to begin a sample with."""
        random = randomness.generator(self._seed, randomness.PROMPT, number)
        at = int(random.integers(self.total_size))
        chunk = int(np.searchsorted(self._ends, at, side="right"))
        return int(self.chunks[chunk][at - int(self._ends[chunk])])  # counted from its end

    def _draw(self, number: int, size: int) -> list[tuple[int, int]]:
        """The chunk of each row, and where the row begins in it."""
        random = randomness.generator(self._seed, randomness.BATCH, number)
        drawn = random.integers(self.total_size, size=size)
        chunks = np.searchsorted(self._ends, drawn, side="right").tolist()
        crops = [len(self.chunks[chunk]) - self.window for chunk in chunks]
        return list(zip(chunks, random.integers(crops).tolist(), strict=True))


class DocumentSampler:
    """Goes through documents, or lines, in an order that each epoch shuffles anew.

    A document that fits into the window is one example. A longer one is cut into windows that
    overlap a little and together cover it; where they lie changes with the epoch. Each epoch has
    every token of every document, most of them once. A control code stands in front of every
    example; without codes, `<|endoftext|>` in front of each document, so that one can be begun with
    nothing else.
    """

    def __init__(self, documents: DocumentSet, n_ctx: int, seed: int):
        """Take in the documents; their tokens are not copied.

        Args:
            n_ctx: the wished window; shorter documents get a window of their own size.

        Raises:
            UserError: no document has two tokens, or a control code fills the window.
        """
        codes = [code[:] for code in documents.codes]
        for name, code in zip(documents.sources, codes, strict=True):
            if len(code) > n_ctx // 2:
                raise UserError(
                    f"The control code of {name} has {len(code)} tokens, more than half of the "
                    f"window of {n_ctx}; give the file a shorter name."
                )
        code_lengths = np.array(list(map(len, codes)), np.int64)[documents.source]
        led = (code_lengths == 0) & (documents.endoftext is not None)
        lengths = documents.lengths + led  # tokens of each document with what leads it
        # What has nothing to predict is left out.
        kept = (documents.lengths > 0) & (lengths + code_lengths >= 2)
        if not kept.any():
            raise _empty()
        self._chunks, self._sources, self._codes = documents.chunks, documents.sources, codes
        self._places, self._source = documents.places[kept], documents.source[kept]
        self._endoftext, self._led, self._lengths = documents.endoftext, led[kept], lengths[kept]
        code_lengths = code_lengths[kept]
        self.total_size = int(documents.lengths[kept].sum())
        self.window = int(min(n_ctx, (self._lengths + code_lengths).max() - 1))
        self._seed = seed
        # Of each document: the tokens that a window has room for, those it predicts that the one
        # before did not (not its first, unless a code stands before that), and all to predict.
        self._room = self.window + 1 - code_lengths
        self._stride = self._room - (code_lengths == 0)
        predicted = self._lengths - (code_lengths == 0)
        windows = -(-predicted // self._stride)
        fixed = windows * self._stride - predicted < self._stride // 2
        self._windows = windows + ((windows >= _MANY) & fixed)
        self._slack = self._windows * self._stride - predicted  # predictions to spare
        self._ends = np.cumsum(self._windows)
        self._token_ends = np.cumsum(documents.lengths[kept])
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may lie in two epochs

    @property
    def description(self) -> str:
        """What there is, in words."""
        return (
            f"{self.total_size:,} tokens in {len(self._places):,} documents or lines, which give "
            f"{self._ends[-1]:,} examples of up to {self.window + 1:,} tokens"
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in which every example has been seen."""
        return -(-int(self._ends[-1]) // batch_size)

    def batch(self, number: int, size: int) -> np.ndarray:
        """The batch of that number: int32, shape [size, window + 1], `PADDING` past the end."""
        batch = np.full((size, self.window + 1), PADDING, np.int32)  # [B, T+1]
        for row, (document, begin, end) in zip(batch, self._rows(number, size), strict=True):
            code = self._codes[self._source[document]]
            row[: len(code)] = code
            row[len(code) : len(code) + end - begin] = self._tokens(document, begin, end)
        return batch

    def describe(self, number: int, size: int) -> list[str]:
        """Where each row of that batch is from, in words."""
        words = []
        for document, begin, end in self._rows(number, size):
            chunk, first, _ = self._places[document].tolist()
            begin, end = max(begin - self._led[document], 0), end - self._led[document]
            name = self._sources[self._source[document]]
            words.append(
                f"{f'{name}, ' if name else ''}document {document} (tokens {begin} to {end - 1} of "
                f"it, {first + begin} to {first + end - 1} of chunk {chunk})"
            )
        return words

    def token(self, number: int) -> int:
        """The first token of a document drawn from all, or of what stands in front of it."""
        random = randomness.generator(self._seed, randomness.PROMPT, number)
        at = int(random.integers(self.total_size))
        document = int(np.searchsorted(self._token_ends, at, side="right"))
        code = self._codes[self._source[document]]
        return int(code[0] if len(code) else self._tokens(document, 0, 1)[0])

    def _rows(self, number: int, size: int) -> list[tuple[int, int, int]]:
        """The document of each row, and where in its chunk the row begins and ends."""
        rows = []
        for position in range(number * size, (number + 1) * size):
            epoch, index = divmod(position, int(self._ends[-1]))
            example = int(self._order(epoch)[index])
            document = int(np.searchsorted(self._ends, example, side="right"))
            rows.append((document, *self._place(document, example, epoch)))
        return rows

    def _place(self, document: int, example: int, epoch: int) -> tuple[int, int]:
        """Where in the document, with what leads it, that example begins and ends."""
        length, room = int(self._lengths[document]), int(self._room[document])
        if length <= room:
            return 0, length
        # Numbers are told apart by their count only if none is a zero: hence the one more.
        random = randomness.generator(self._seed, randomness.BATCH, epoch, document + 1)
        slack, stride = int(self._slack[document]), int(self._stride[document])
        # What is to spare goes to both ends, to neither more than a window.
        shift = int(random.integers(max(0, slack - stride), min(slack, stride) + 1))
        window = example - int(self._ends[document] - self._windows[document])
        begin = min(max(window * stride - shift, 0), length - room)
        return begin, begin + room

    def _tokens(self, document: int, begin: int, end: int) -> np.ndarray:
        """Part of a document, with what leads it."""
        chunk, first, _ = self._places[document].tolist()
        if not self._led[document]:
            return self._chunks[chunk][first + begin : first + end]
        tokens = self._chunks[chunk][first + max(begin - 1, 0) : first + end - 1]
        return tokens if begin else np.concatenate([[self._endoftext], tokens])

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = randomness.generator(self._seed, randomness.BATCH, epoch)
        return random.permutation(int(self._ends[-1]))


def _empty() -> UserError:
    return UserError("The dataset is empty: training needs a text of at least two tokens.")
