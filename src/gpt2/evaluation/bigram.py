"""Bigram models, which predict a token from the previous one: a baseline for neural models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Tokens that are counted at once.
BLOCK = 2**22
# The candidates for k in `AddK`.
ADDED = tuple(10.0**exponent for exponent in np.arange(-6, 1.5, 0.5))


class Counts:
    """Unigram and bigram counts of a text.

    Attributes:
        firsts: number of bigrams that begin with each token, int64 [V].
        kinds: number of different tokens that follow each token, int64 [V].
        singles: number of occurrences of each token, int64 [V].
        pairs: the bigrams that occur, as first * V + second, ascending, int64 [P].
        times: number of occurrences of each bigram, int64 [P].
    """

    def __init__(self, chunks: Iterable[np.ndarray], n_vocab: int):
        """Count in one pass.

        Args:
            chunks: the consecutive parts of a text, ids [T] each.
        """
        self.n_vocab = n_vocab
        self.singles = np.zeros(n_vocab, np.int64)
        self.pairs = self.times = np.empty(0, np.int64)
        last = np.empty(0, np.int64)
        for block in _blocks(chunks):
            self.singles += np.bincount(block, minlength=n_vocab)
            tokens = np.concatenate([last, block])
            self._add(*np.unique(tokens[:-1] * n_vocab + tokens[1:], return_counts=True))
            last = block[-1:]
        firsts = self.pairs // n_vocab
        self.firsts = np.bincount(firsts, weights=self.times, minlength=n_vocab).astype(np.int64)
        self.kinds = np.bincount(firsts, minlength=n_vocab)

    def _add(self, pairs: np.ndarray, times: np.ndarray) -> None:
        """Merge the sorted bigrams of a block, and their counts, into those before."""
        if len(self.pairs):
            times = np.concatenate([self.times, times])
            pairs, indices = np.unique(np.concatenate([self.pairs, pairs]), return_inverse=True)
            times = np.bincount(indices, weights=times).astype(np.int64)
        self.pairs, self.times = pairs, times

    def of(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return the counts of some bigrams: ids [N], [N] -> int64 [N]."""
        if not len(self.pairs):
            return np.zeros(np.broadcast(before, after).shape, np.int64)
        pairs = before.astype(np.int64) * self.n_vocab + after
        at = np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)
        return np.where(self.pairs[at] == pairs, self.times[at], 0)


class BigramModel:
    """A bigram model; the subclasses differ in how they smooth the counts."""

    def __init__(self, counts: Counts):
        self.counts = counts

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return p(after | before) of each bigram: ids [N], [N] -> float64 [N]."""
        raise NotImplementedError

    def negative_log_likelihood(self, tokens: np.ndarray) -> float:
        """Return the negative log-likelihood of all tokens but the first, in nats: ids [T]."""
        return float(-np.log(self.probabilities(tokens[:-1], tokens[1:])).sum())

    def sample(
        self, start: int, length: int, random: np.random.Generator, end: int | None = None
    ) -> list[int]:
        """Return up to `length` sampled tokens after `start`, stopping before the token `end`."""
        every = np.arange(self.counts.n_vocab)
        tokens = [start]
        while len(tokens) <= length:
            cumulative = np.cumsum(self.probabilities(np.full_like(every, tokens[-1]), every))
            drawn = random.random() * cumulative[-1]
            token = int(np.searchsorted(cumulative, drawn, side="right"))
            if token == end:
                break
            tokens.append(min(token, len(every) - 1))
        return tokens[1:]


class Interpolated(BigramModel):
    """Bigram probabilities interpolated with unigram probabilities (Witten-Bell smoothing).

    p(b | a) = w(a) * count(a, b) / count(a) + (1 - w(a)) * p(b), where p(b) is add-one smoothed and
    w(a) = count(a) / (count(a) + kinds(a)): the weight of the bigrams grows with the number of
    occurrences of `a`, and falls with the number of different tokens that follow it.

    Source: Witten and Bell 1991, method C.
    """

    def __init__(self, counts: Counts):
        super().__init__(counts)
        singles = counts.singles + 1.0
        self._singles = singles / singles.sum()

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """See `BigramModel.probabilities`."""
        found = self.counts.of(before, after)
        seen, kinds = self.counts.firsts[before], self.counts.kinds[before]
        # The same formula with one division: (count(a, b) + kinds(a) p(b)) / (count(a) + kinds(a)).
        unseen = seen == 0
        mixed = (found + kinds * self._singles[after]) / np.where(unseen, 1, seen + kinds)
        return np.where(unseen, self._singles[after], mixed)


class AddK(BigramModel):
    """Additive smoothing: p(b | a) = (count(a, b) + k) / (count(a) + k V).

    Attributes:
        k: if not given, the candidate in `ADDED` with the lowest leave-one-out cross-entropy on
            the counted text.
    """

    def __init__(self, counts: Counts, k: float | None = None):
        super().__init__(counts)
        self.k = min(ADDED, key=self._leave_one_out) if k is None else k

    def _leave_one_out(self, k: float) -> float:
        """Return the nats of the counted text, each bigram predicted from all the others."""
        others = self.counts.firsts[self.counts.pairs // self.counts.n_vocab] - 1
        shares = (self.counts.times - 1 + k) / (others + k * self.counts.n_vocab)
        return float(-(self.counts.times * np.log(shares)).sum())

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """See `BigramModel.probabilities`."""
        seen = self.counts.firsts[before] + self.k * self.counts.n_vocab
        return (self.counts.of(before, after) + self.k) / seen


def _blocks(chunks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Yield the same tokens as int64 blocks of at least `BLOCK`; the last may be shorter."""
    waiting: list[np.ndarray] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) >= BLOCK:
            yield np.concatenate(waiting).astype(np.int64)
            waiting = []
    if any(map(len, waiting)):
        yield np.concatenate(waiting).astype(np.int64)
