"""Sliding windows over a text that is longer than the context window.

    window 4, stride 2     inputs 0 1 2 3         predicts 1 2 3 4
                           inputs     2 3 4 5     predicts     . . 5 6

Each token but the first is predicted once, in the first window that contains it as a target. With a
stride as long as the window, the windows are consecutive. A shorter stride gives each token more
context, and takes longer in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gpt2.checks import check_count
from gpt2.errors import UserError


class Window(NamedTuple):
    """Inputs start to end - 1 predict tokens start + 1 to end; those after `counted` are scored."""

    start: int
    counted: int
    end: int


@dataclass(frozen=True)
class WindowSettings:
    """Window and stride, in tokens."""

    window: int
    stride: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UserError: one is below 1, or the stride is longer than the window.
        """
        for name in ("window", "stride"):
            check_count(name, getattr(self, name), least=1)
        if self.stride > self.window:
            raise UserError(
                f"stride ({self.stride}) must be at most window ({self.window}), or tokens would "
                "be skipped."
            )

    @classmethod
    def of(cls, n_ctx: int, window: int | None = None, stride: int | None = None) -> WindowSettings:
        """Return the settings for a model.

        Args:
            window: 1 to n_ctx; None for n_ctx.
            stride: 1 to `window`; None for `window`.

        Raises:
            UserError: a number is out of range.
        """
        window = n_ctx if window is None else window
        settings = cls(window, window if stride is None else stride)
        if window > n_ctx:
            raise UserError(f"window ({window}) must be at most the context window ({n_ctx}).")
        return settings

    def windows(self, predictions: int) -> Iterator[Window]:
        """Yield the windows over a text of `predictions` + 1 tokens."""
        counted = 0
        for start in range(0, predictions, self.stride):
            end = min(start + self.window, predictions)
            yield Window(start, counted, end)
            counted = end
            if end == predictions:
                return
