"""Bigram models: predict a token from the one before it, by counting. The bar to clear."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Tokens that are counted at a time.
BLOCK = 2**22
# What `AddK` chooses among.
ADDED = tuple(10.0**exponent for exponent in np.arange(-6, 1.5, 0.5))


class Counts:
    """How often each token followed each other one in a text.

    Attributes:
        firsts: how often each token stood before another, int64 [V].
        kinds: how many kinds of token followed each, int64 [V].
        singles: how often each token occurs, int64 [V].
        pairs: pairs that occur as first * V + second, in order, int64 [P].
        times: how often each of them does, int64 [P].
    """

    def __init__(self, chunks: Iterable[np.ndarray], n_vocab: int):
        """Count in one pass over a text: chunks of ids that follow each other, each [tokens]."""
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
        if len(self.pairs):
            times = np.concatenate([self.times, times])
            pairs, places = np.unique(np.concatenate([self.pairs, pairs]), return_inverse=True)
            times = np.bincount(places, weights=times).astype(np.int64)
        self.pairs, self.times = pairs, times

    def of(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """How often each of some pairs occurs: ids [N], [N] -> int64 [N]."""
        if not len(self.pairs):
            return np.zeros(np.broadcast(before, after).shape, np.int64)
        pairs = before.astype(np.int64) * self.n_vocab + after
        at = np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)
        return np.where(self.pairs[at] == pairs, self.times[at], 0)


class BigramModel:
    """Predicts by counts; kinds of it differ in what they make of pairs that were never seen."""

    def __init__(self, counts: Counts):
        self.counts = counts

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """p(after | before) for each pair of ids, float64 [pairs]."""
        raise NotImplementedError

    def negative_log_likelihood(self, tokens: np.ndarray) -> float:
        """The summed nats of every token but the first."""
        return float(-np.log(self.probabilities(tokens[:-1], tokens[1:])).sum())

    def sample(
        self, start: int, length: int, random: np.random.Generator, end: int | None = None
    ) -> list[int]:
        """Tokens drawn one after the other, after `start`; before `end`, if that is drawn."""
        every = np.arange(self.counts.n_vocab)
        tokens = [start]
        while len(tokens) <= length:
            likely = np.cumsum(self.probabilities(np.full_like(every, tokens[-1]), every))
            token = int(np.searchsorted(likely, random.random() * likely[-1], side="right"))
            if token == end:
                break
            tokens.append(min(token, len(every) - 1))
        return tokens[1:]


class Interpolated(BigramModel):
    """The pairs' counts, interpolated with those of single tokens.

    p(b | a) = w(a) * count(a, b) / count(a) + (1 - w(a)) * p(b), where p(b) adds one to every
    token's count and w(a) = count(a) / (count(a) + kinds(a)) trusts the pairs more the oftener `a`
    was seen and the fewer kinds of token followed it (Witten and Bell 1991, method C).
    """

    def __init__(self, counts: Counts):
        super().__init__(counts)
        singles = counts.singles + 1.0
        self._singles = singles / singles.sum()

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """See `BigramModel.probabilities`."""
        found = self.counts.of(before, after)
        seen, kinds = self.counts.firsts[before], self.counts.kinds[before]
        # p = (count(a, b) + kinds(a) p(b)) / (count(a) + kinds(a)), the formula above in one.
        unseen = seen == 0
        mixed = (found + kinds * self._singles[after]) / np.where(unseen, 1, seen + kinds)
        return np.where(unseen, self._singles[after], mixed)


class AddK(BigramModel):
    """The pairs' counts, k added to each: p(b | a) = (count(a, b) + k) / (count(a) + k V).

    Attributes:
        k: if not given, the one of `ADDED` under which the text that was counted is likeliest when
            each pair is predicted from the counts of all the others.
    """

    def __init__(self, counts: Counts, k: float | None = None):
        super().__init__(counts)
        self.k = min(ADDED, key=self._left_out) if k is None else k

    def _left_out(self, k: float) -> float:
        """Summed nats of the counted text, each pair taken out of the counts that predict it."""
        others = self.counts.firsts[self.counts.pairs // self.counts.n_vocab] - 1
        shares = (self.counts.times - 1 + k) / (others + k * self.counts.n_vocab)
        return float(-(self.counts.times * np.log(shares)).sum())

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """See `BigramModel.probabilities`."""
        seen = self.counts.firsts[before] + self.k * self.counts.n_vocab
        return (self.counts.of(before, after) + self.k) / seen


def _blocks(chunks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """The same tokens, at least `BLOCK` together but for the last ones, int64."""
    waiting: list[np.ndarray] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) >= BLOCK:
            yield np.concatenate(waiting).astype(np.int64)
            waiting = []
    if any(map(len, waiting)):
        yield np.concatenate(waiting).astype(np.int64)
