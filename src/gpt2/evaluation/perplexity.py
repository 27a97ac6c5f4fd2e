"""Nats spent on a text, per whatever they are to be compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt2.evaluation.texts import ScoredText


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        nll: the summed nats of all predicted tokens (negative log-likelihood).
        tokens: that were predicted.
        words, bytes: of the original text.
    """

    nll: float
    tokens: int
    words: int
    bytes: int

    @classmethod
    def of(cls, nll: float, text: ScoredText) -> Perplexity:
        """Of the summed nats of a text."""
        return cls(nll, text.predicted, text.words, text.size)

    @property
    def per_token(self) -> float:
        """Perplexity of a token."""
        return exponential(self.nll, self.tokens)

    @property
    def per_word(self) -> float:
        """Perplexity of a word of the original text."""
        return exponential(self.nll, self.words)

    @property
    def per_byte(self) -> float:
        """Perplexity of a byte of the original text."""
        return exponential(self.nll, self.bytes)

    @property
    def bits_per_byte(self) -> float:
        """Comparable across vocabularies."""
        return bits_per_byte(self.nll, self.bytes)


def exponential(nats: float, units: int) -> float:
    """exp(nats / units); infinite where that is too large for a number, or there are no units."""
    try:
        return math.exp(nats / units)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def bits_per_byte(nats: float, size: int) -> float:
    """Nats spent on a text of `size` bytes, as bits per byte: comparable across vocabularies."""
    return nats / math.log(2) / size
