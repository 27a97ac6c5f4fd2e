"""Draws training batches from chunks of tokens."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gpt2 import randomness
from gpt2.errors import UserError

PADDING = -1  # in a batch, in the places past the end of an example


def join_short(chunks: Iterable[np.ndarray], window: int) -> list[np.ndarray]:
    """Join neighbouring chunks until each has at least `window` tokens.

    Short texts are so used in full, where a draw of whole windows would have to pass them over.
    Only when all chunks together are shorter than the window does a shorter one come back.
    """
    joined: list[np.ndarray] = []
    pending: list[np.ndarray] = []
    for chunk in chunks:
        pending.append(chunk)
        if sum(map(len, pending)) >= window:
            joined.append(np.concatenate(pending))
            pending = []
    if pending:
        joined[-1:] = [np.concatenate([*joined[-1:], *pending])]
    return joined


def split(chunks: list[np.ndarray], share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """STAND-IN."""
    tokens = np.concatenate(chunks)
    border = round(len(tokens) * (1 - share))
    return [tokens[:border]], [tokens[border:]]


class Sampler:
    """Draws crops of `window` tokens, each equally likely, none across the border of two chunks.

    The draw of a step depends on the seed and the step alone.
    """

    def __init__(self, chunks: Iterable[np.ndarray], n_ctx: int, seed: int):
        """Take in the chunks.

        Args:
            chunks: token ids, each an integer array of shape [tokens].
            n_ctx: the wished window; a smaller dataset gets a window of its own size.

        Raises:
            UserError: there are not even two tokens.
        """
        self.chunks = join_short(chunks, n_ctx)
        self.total_size = sum(map(len, self.chunks))
        if self.total_size < 2:
            raise UserError("The dataset is empty: training needs a text of at least two tokens.")
        self.window = min(n_ctx, max(map(len, self.chunks)))
        self._seed = seed
        # Crops that begin in the chunks up to and including each one.
        self._starts = np.cumsum([len(chunk) - self.window + 1 for chunk in self.chunks])

    def crop(self, start: int) -> np.ndarray:
        """The crop with the number `start`, counted over all chunks; int32, shape [window]."""
        number = int(np.searchsorted(self._starts, start, side="right"))
        offset = start - (int(self._starts[number - 1]) if number else 0)
        return self.chunks[number][offset : offset + self.window].astype(np.int32)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The batch of a step: int32, shape [batch_size, window]."""
        random = randomness.generator(self._seed, randomness.BATCH, step)
        starts = random.integers(0, self._starts[-1], size=batch_size)
        return np.stack([self.crop(int(start)) for start in starts])  # [B, T]

    def steps_per_epoch(self, batch_size: int) -> int:
        """STAND-IN."""
        return -(-self.total_size // (self.window * batch_size))

    def token(self, step: int) -> int:
        """One token drawn from the whole dataset, to begin the samples of a step with."""
        random = randomness.generator(self._seed, randomness.PROMPT, step)
        at = int(random.integers(self.total_size))
        for chunk in self.chunks:
            if at < len(chunk):
                return int(chunk[at])
            at -= len(chunk)
        raise AssertionError("the position lies beyond the dataset")
