"""The interface of an engine: tokens in, next-token logits out, the KV cache inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """A model with a KV cache for several sequences.

    Each sequence has a slot and a length of its own, at most n_ctx tokens.
    Shapes: B slots, V vocabulary.
    """

    lengths: np.ndarray  # tokens in the KV cache of each slot, int64 [B]

    def reset(self, slots: int) -> None:
        """Empty the KV cache and resize it to `slots` sequences."""

    def prefill(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """Replace the sequence of a slot by a prompt of 1 to n_ctx token ids.

        Returns:
            The logits of the token after the prompt, float32 [V].
        """

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Run one decode step: append one token to each sequence, ids int [B].

        No sequence may already hold n_ctx tokens.

        Returns:
            The logits of the next token of each sequence, float32 [B, V].
        """

    def reorder(self, sources: Sequence[int]) -> None:
        """Replace the sequence of each slot i by a copy of the one in slot sources[i].

        There are as many slots afterwards as sources: sequences may be dropped or duplicated.
        """
