"""Draw training batches from a dataset.

A sampler has no state: a batch is a function of the seed and the batch number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from gpt2 import randomness
from gpt2.data.datasets import DocumentSet, TokenStream
from gpt2.errors import UserError

PADDING = -1  # fills a batch after the end of an example

# A document of at least this many windows gets one more if its windows could hardly move otherwise,
# which costs at most an eighth more computation.
_MANY = 8


def make_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int
) -> StreamSampler | DocumentSampler:
    """Return the sampler for training.

    Args:
        dataset: what to draw from.
        n_ctx: context window of the model, in tokens.
        seed: random seed.

    Raises:
        UserError: the dataset is too small.
    """
    if isinstance(dataset, TokenStream):
        return StreamSampler(dataset.chunks, n_ctx, seed)
    return DocumentSampler(dataset, n_ctx, seed)


def make_validation_sampler(
    dataset: TokenStream | DocumentSet, n_ctx: int, seed: int
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
    return DocumentSampler(dataset, n_ctx, seed)


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

    def batch(self, number: int, size: int) -> np.ndarray:
        """Return batch `number`, int32 of shape [size, window + 1]."""
        rows = [
            self.chunks[chunk][start : start + self.window + 1]
            for chunk, start in self._draw(number, size)
        ]
        return np.stack(rows).astype(np.int32)  # [B, T+1]

    def describe(self, number: int, size: int) -> list[str]:
        """Return where each sequence of that batch comes from, in words."""
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
    """Draws examples from documents or lines, in an order shuffled anew in each epoch.

    A document that fits into the window is one example. A longer one is split into slightly
    overlapping windows that cover it, at positions that change with the epoch. An epoch contains
    every token of every document, most of them once. Every example starts with its control code;
    without codes, every document starts with `<|endoftext|>`, so that the model can be prompted
    with it alone.
    """

    def __init__(self, documents: DocumentSet, n_ctx: int, seed: int):
        """Prepare the documents; their tokens are not copied.

        Args:
            documents: what to draw from.
            n_ctx: window in tokens; if all documents are shorter, the window is smaller.
            seed: random seed.

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
        self._places, self._source = documents.places[kept], documents.source[kept]
        self._endoftext, self._led, self._lengths = documents.endoftext, led[kept], lengths[kept]
        code_lengths = code_lengths[kept]
        self.total_size = int(documents.lengths[kept].sum())
        self.window = int(min(n_ctx, (self._lengths + code_lengths).max() - 1))
        self._seed = seed
        # Per document: the tokens that fit into a window; the predictions that a window adds to the
        # previous one (its first token is predicted only after a code); and all predictions.
        self._room = self.window + 1 - code_lengths
        self._stride = self._room - (code_lengths == 0)
        predicted = self._lengths - (code_lengths == 0)
        windows = -(-predicted // self._stride)
        fixed = windows * self._stride - predicted < self._stride // 2
        self._windows = windows + ((windows >= _MANY) & fixed)
        self._slack = self._windows * self._stride - predicted  # predictions made twice
        self._ends = np.cumsum(self._windows)
        self._token_ends = np.cumsum(documents.lengths[kept])
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may span two epochs

    @property
    def description(self) -> str:
        """The size of the dataset in words."""
        return (
            f"{self.total_size:,} tokens in {len(self._places):,} documents or lines, which give "
            f"{self._ends[-1]:,} examples of up to {self.window + 1:,} tokens"
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches that contain every example."""
        return -(-int(self._ends[-1]) // batch_size)

    def batch(self, number: int, size: int) -> np.ndarray:
        """Return batch `number`, int32 of shape [size, window + 1], filled up with `PADDING`."""
        batch = np.full((size, self.window + 1), PADDING, np.int32)  # [B, T+1]
        for row, (document, begin, end) in zip(batch, self._rows(number, size), strict=True):
            code = self._codes[self._source[document]]
            row[: len(code)] = code
            row[len(code) : len(code) + end - begin] = self._tokens(document, begin, end)
        return batch

    def describe(self, number: int, size: int) -> list[str]:
        """Return where each sequence of that batch comes from, in words."""
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
        """Return the first token of a random document, or of its control code."""
        random = randomness.generator(self._seed, randomness.PROMPT, number)
        at = int(random.integers(self.total_size))
        document = int(np.searchsorted(self._token_ends, at, side="right"))
        code = self._codes[self._source[document]]
        return int(code[0] if len(code) else self._tokens(document, 0, 1)[0])

    def _rows(self, number: int, size: int) -> list[tuple[int, int, int]]:
        """Return the document of each sequence, and its start and end in the document."""
        rows = []
        for position in range(number * size, (number + 1) * size):
            epoch, index = divmod(position, int(self._ends[-1]))
            example = int(self._order(epoch)[index])
            document = int(np.searchsorted(self._ends, example, side="right"))
            rows.append((document, *self._place(document, example, epoch)))
        return rows

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

    def _tokens(self, document: int, begin: int, end: int) -> np.ndarray:
        """Return part of a document, a leading <|endoftext|> included."""
        chunk, first, _ = self._places[document].tolist()
        if not self._led[document]:
            return self._chunks[chunk][first + begin : first + end]
        tokens = self._chunks[chunk][first + max(begin - 1, 0) : first + end - 1]
        return tokens if begin else np.concatenate([[self._endoftext], tokens])

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = randomness.generator(self._seed, randomness.BATCH, epoch)
        return random.permutation(int(self._ends[-1]))


def _empty() -> UserError:
    return UserError("The dataset is empty. Training needs a text of at least two tokens.")
