"""The bigram model: predicts a token from the one before it, by counting. The bar to clear."""

from __future__ import annotations

import numpy as np


class BigramModel:
    """Counts of token pairs, interpolated with the counts of single tokens.

    p(b | a) = w(a) * count(a, b) / count(a) + (1 - w(a)) * p(b), where p(b) adds one to every
    token's count and w(a) = count(a) / (count(a) + kinds(a)) trusts the pairs more the oftener `a`
    was seen and the fewer kinds of token followed it (Witten and Bell 1991, method C).
    """

    def __init__(self, tokens: np.ndarray, n_vocab: int):
        """Count the pairs of a training text: ids, an integer array of shape [tokens]."""
        self._n_vocab = n_vocab
        tokens = tokens.astype(np.int64)
        pairs, counts = np.unique(tokens[:-1] * n_vocab + tokens[1:], return_counts=True)
        # One more that no pair equals, so that the search for a pair always ends at one.
        self._pairs = np.append(pairs, np.iinfo(np.int64).max)
        self._pair_counts = np.append(counts, 0)
        firsts = pairs // n_vocab
        self._counts = np.bincount(firsts, weights=counts, minlength=n_vocab)
        self._kinds = np.bincount(firsts, minlength=n_vocab)
        singles = np.bincount(tokens, minlength=n_vocab) + 1.0
        self._singles = singles / singles.sum()

    def probabilities(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """p(after | before) for each pair of ids, float64 [pairs]."""
        pairs = before.astype(np.int64) * self._n_vocab + after
        at = np.searchsorted(self._pairs, pairs)
        found = np.where(self._pairs[at] == pairs, self._pair_counts[at], 0)
        seen, kinds = self._counts[before], self._kinds[before]
        # p = (count(a, b) + kinds(a) p(b)) / (count(a) + kinds(a)), the formula above in one.
        unseen = seen == 0
        mixed = (found + kinds * self._singles[after]) / np.where(unseen, 1, seen + kinds)
        return np.where(unseen, self._singles[after], mixed)

    def negative_log_likelihood(self, tokens: np.ndarray) -> float:
        """The summed nats of every token but the first."""
        return float(-np.log(self.probabilities(tokens[:-1], tokens[1:])).sum())
