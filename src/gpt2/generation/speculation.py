"""Lossless speculation: guess the next tokens, and verify all of them in one pass.

At batch 1 a decode step reads all weights for one token, and a pass over a few tokens takes little
longer. A token is a function of its logits, the seed and its position, however its guess came
about, so that the text is the same as without guesses.

Source: Saxena 2023, "Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gpt2.generation.completions import Completion
from gpt2.generation.engine import Engine

Extended = Callable[[Completion, np.ndarray], Iterator[Completion]]

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits are irregular
LONGEST, SHORTEST = 5, 3  # tokens of the n-grams that are looked up
DRAFT = 6  # tokens guessed at once: XNNPACK multiplies float32 matrices by up to 7 rows at a time
BUDGET = 0.015  # part of the decoding time that may be lost by wrong guesses
MOST_SAVED = 8  # decode steps of saved time that later guesses may lose again
RECENT = 0.2  # weight of the latest measurement in a mean


class Speculation:
    """Decodes one sequence with guesses while they save time."""

    def __init__(self, passages: Passages | None = None) -> None:
        """Begin.

        Args:
            passages: of a text to guess from before the sequence itself.
        """
        self._passages = passages
        self._account = Account()
        self._completion: Completion | None = None
        self._ngrams = NGrams()

    def advance(
        self, engine: Engine, completion: Completion, most: int, extended: Extended
    ) -> Iterator[Completion]:
        """Add at least one token to the completion in slot 0, and yield it after each.

        Args:
            most: the number of tokens to add at most, at least 1. The context window has room for
                them.
            extended: adds a token to a completion, of its logits, and yields it unless it fails.
        """
        if completion is not self._completion:
            self._completion, self._ngrams = completion, NGrams()
        sequence = [*completion.prompt, *completion.tokens]
        self._ngrams.update(sequence)
        allowed = min(DRAFT, most - 1) if self._account.allows else 0
        draft = self._passages.draft(sequence, allowed) if self._passages else []
        draft = draft or self._ngrams.draft(allowed)
        began = time.perf_counter()
        logits = engine.extend(0, [completion.tokens[-1], *draft])
        seconds = time.perf_counter() - began
        held, added = int(engine.lengths[0]) - len(draft), 0
        for row, guess in zip(logits, [*draft, None], strict=True):
            added += 1
            yield from extended(completion, row)
            if completion.finish_reason or completion.tokens[-1] != guess:
                break
        engine.lengths[0] = held + added - 1  # drops what follows a wrong guess
        if draft:
            self._account.verified(seconds, added)
        else:
            self._account.decoded(seconds)


class NGrams:
    """Guesses that a growing sequence continues as it did after the last n-gram like its end."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        # Of each n-gram, the positions after its last two occurrences, the later one first.
        self._following: dict[tuple[int, ...], tuple[int, int]] = {}

    def update(self, tokens: Sequence[int]) -> None:
        """Take the sequence, which begins with the one of the last call."""
        for token in tokens[len(self._tokens) :]:
            self._tokens.append(token)
            end = len(self._tokens)
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                ngram = tuple(self._tokens[end - size :])
                self._following[ngram] = end, self._following.get(ngram, (0, 0))[0]

    def draft(self, count: int) -> list[int]:
        """Return `count` guesses, none if no n-gram of the end occurred before.

        Example:
            >>> ngrams = NGrams()
            >>> ngrams.update([1, 2, 3, 4, 1, 2, 3])
            >>> ngrams.draft(6)
            [4, 1, 2, 3, 4, 1]
        """
        end = len(self._tokens)
        for size in range(min(LONGEST, end), SHORTEST - 1, -1):
            _, place = self._following[tuple(self._tokens[-size:])]
            if place:
                # Beyond the end, the guesses follow themselves.
                return [self._tokens[place + n % (end - place)] for n in range(count)]
        return []


class Passages:
    """Guesses that a sequence continues like the last passage of a text with its last tokens."""

    def __init__(self, tokens: np.ndarray):
        """Index a text.

        Args:
            tokens: integers [T]; they and two more arrays of 8 bytes per token stay in memory.
        """
        self._tokens = tokens
        hashes = _ngram_hashes(tokens)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def draft(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return up to `count` guesses, none if the text does not have the last n-gram.

        Example:
            >>> Passages(np.array([1, 2, 3, 4, 5, 6, 7, 8])).draft([9, 2, 3, 4, 5, 6], 3)
            [7, 8]
        """
        if not count or len(tokens) < LONGEST:
            return []
        end = np.array(tokens[-LONGEST:])
        place = np.searchsorted(self._hashes, _ngram_hashes(end)[0], side="right") - 1
        first = self._order[place] if place >= 0 else 0
        following = first + LONGEST
        if not np.array_equal(self._tokens[first:following], end):
            return []
        return self._tokens[following : following + count].tolist()


def _ngram_hashes(tokens: np.ndarray) -> np.ndarray:
    """Return a hash of each `LONGEST` neighboring tokens, uint64 [T - LONGEST + 1]."""
    count = max(len(tokens) - LONGEST + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for offset in range(LONGEST):
        hashes = hashes * MULTIPLIER + tokens[offset : offset + count].astype(np.uint64)
    return hashes


class Account:
    """Decides whether to guess, by the time that guesses saved and lost so far.

    What wrong guesses lose is at most `BUDGET` of the decoding time, one decode step, and part of
    what right guesses saved before.
    """

    def __init__(self) -> None:
        self._decode = 0.0  # mean seconds of a decode step, 0 before the first one
        self._verify = 0.0  # mean seconds of a pass that verifies, 0 before the first one
        self._balance = 0.0  # seconds that may be lost

    @property
    def allows(self) -> bool:
        """Return whether a pass can be afforded if all of its guesses turn out wrong."""
        expected = self._verify or 2 * self._decode
        return self._decode > 0 and self._balance >= expected - self._decode

    def decoded(self, seconds: float) -> None:
        """Enter a decode step."""
        if not self._decode:
            self._balance = seconds
        self._decode = _mean(self._decode, seconds)
        self._balance += BUDGET * self._decode

    def verified(self, seconds: float, tokens: int) -> None:
        """Enter a pass that gave so many tokens: the right guesses and one more."""
        self._verify = _mean(self._verify, seconds)
        balance = self._balance + tokens * (1 + BUDGET) * self._decode - seconds
        self._balance = min(balance, MOST_SAVED * self._decode)


def _mean(mean: float, value: float) -> float:
    return mean + RECENT * (value - mean) if mean else value
