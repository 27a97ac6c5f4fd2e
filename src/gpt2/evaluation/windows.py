"""How a text that is longer than the model's window is cut: in windows, one a stride after another.

    window 4, stride 2     inputs 0 1 2 3         predicts 1 2 3 4
                           inputs     2 3 4 5     predicts     . . 5 6

Each token but the first is predicted once, by the first window that reaches it. With a stride as
long as the window, windows only follow one another; a shorter one lets tokens see more of what
stands before them, and takes as many times longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gpt2.errors import UserError


class Window(NamedTuple):
    """Inputs start to end - 1 predict the tokens start + 1 to end; those after `counted` count."""

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
            UserError: one is below 1, or the stride leaves tokens out.
        """
        for name in ("window", "stride"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name} should be a whole number of at least 1, not {value!r}.")
        if self.stride > self.window:
            raise UserError(
                f"A stride of {self.stride} is longer than the window of {self.window} and would "
                "leave tokens out; give one that is at most as long."
            )

    @classmethod
    def of(cls, n_ctx: int, window: int | None = None, stride: int | None = None) -> WindowSettings:
        """The model's own window and a stride as long, where nothing else is asked for.

        Raises:
            UserError: the window is longer than the model's, or see above.
        """
        window = n_ctx if window is None else window
        cut = cls(window, window if stride is None else stride)
        if window > n_ctx:
            raise UserError(f"A window of {window} is longer than the model's, which is {n_ctx}.")
        return cut

    def windows(self, predictions: int) -> Iterator[Window]:
        """The windows of a text of `predictions` + 1 tokens."""
        counted = 0
        for start in range(0, predictions, self.stride):
            end = min(start + self.window, predictions)
            yield Window(start, counted, end)
            counted = end
            if end == predictions:
                return
