"""Engines: tokens in, scores of the next token out, the memory of earlier tokens inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """What generation needs of a model.

    An engine remembers several texts at once, its rows; each has its own length, up to the window.
    """

    lengths: np.ndarray  # tokens that each row remembers, int64 [B]

    def reset(self, rows: int) -> None:
        """Forget everything, and make room for so many rows."""

    def prefill(self, row: int, tokens: Sequence[int]) -> np.ndarray:
        """Let a row forget its text and take in another, at least one and at most n_ctx tokens.

        Returns:
            The scores of what follows the last of them, float32 [V].
        """

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Take in one more token in each row, ids int [B]; none of them may be full.

        Returns:
            The scores of what follows, float32 [B, V].
        """

    def reorder(self, sources: Sequence[int]) -> None:
        """Make each row number i remember what row number sources[i] did.

        The number of rows becomes that of the sources: rows may be left out, or doubled.
        """
