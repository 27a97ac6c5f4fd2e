"""The interface of an engine: tokens in, next-token logits out, the KV cache inside."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar

import numpy as np

Result = TypeVar("Result")


class Engine(Protocol):
    """A model with a KV cache for several sequences.

    Each sequence has a slot and a length of its own, at most n_ctx tokens. Slots are independent:
    one may be prefilled in parts while others decode.
    Shapes: B slots, T tokens, V vocabulary.

    Attributes:
        lengths: tokens of each slot's sequence, int64 [B]. Lowering one drops the last tokens of
            the sequence.
        slot_bytes: memory that the keys and values of a slot take, with n_ctx tokens.
    """

    lengths: np.ndarray
    slot_bytes: int

    def reset(self, slots: int) -> None:
        """Begin `slots` empty sequences. The KV cache may keep prompts for `reuse`."""

    def reuse(self, slot: int, tokens: Sequence[int]) -> int:
        """Begin the sequence of a slot with the part of a prompt that the KV cache still has.

        Args:
            tokens: the prompt, at least one token id.

        Returns:
            The new length of the slot, less than that of the prompt. After `prefill` of the
            remaining tokens, all logits are the same as without reuse, to the bit.
        """

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """Replace the sequence of a slot from position `start` on by token ids, at least one.

        A prompt may come in parts, each of which starts where the one before ended.

        Args:
            start: number of tokens to keep, at most the slot's length.

        Returns:
            The logits of the token after the last one, float32 [V].
        """

    def score(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """Do what `prefill` does, but return the logits after each token, float32 [T, V]."""

    def prefill_slices(
        self, slot: int, tokens: Sequence[int], start: int = 0, scored: bool = False
    ) -> Generator[None, None, np.ndarray]:
        """Do what `prefill` does, or `score`, in many short slices.

        Between two slices other slots may be decoded, and nothing else. If the generator is not run
        to its end, the slot has to be prefilled again.

        Args:
            scored: whether to return the logits after each token instead of those of the last one.

        Yields:
            None, between two slices.

        Returns:
            The logits, float32 [T, V] or [1, V]; the same as without decoding in between, to the
            bit.
        """

    def decode(self, tokens: np.ndarray, slots: Sequence[int] | None = None) -> np.ndarray:
        """Run one decode step: append one token to each sequence, ids int [B].

        No sequence may already hold n_ctx tokens.

        Args:
            slots: the B slots to extend, each at most once; None for all of them.

        Returns:
            The logits of the next token of each sequence, float32 [B, V].
        """

    def extend(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """Append several tokens to one sequence in one pass, at most until it holds n_ctx.

        Returns:
            The logits of the token after each of them, float32 [T, V], as `decode` returns them
            one by one.
        """

    def reorder(self, sources: Sequence[int]) -> None:
        """Replace the sequence of each slot i by a copy of the one in slot sources[i].

        There are as many slots afterwards as sources: sequences may be dropped or duplicated.
        """


def prefill_prompt(engine: Engine, slot: int, tokens: Sequence[int]) -> np.ndarray:
    """Replace the sequence of a slot by a prompt, and return the logits after it, float32 [V].

    Only the tokens that the KV cache does not have are processed.
    """
    start = engine.reuse(slot, tokens)
    return engine.prefill(slot, tokens[start:], start)


def result_of(slices: Generator[object, None, Result]) -> Result:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value
