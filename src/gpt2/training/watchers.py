"""Those who keep what a training finds: a history for plots, TensorBoard, Weights & Biases."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Keeps numbers and samples; the names of numbers are the same for all of them.

    loss, average, learning_rate, gradient_norm, tokens_per_second    of a step
    val_loss, val_perplexity                                          of a validation
    """

    def numbers(self, step: int, **values: float) -> None:
        """Keep numbers of a step.

        Raises:
            UserError: they cannot be kept now.
        """

    def samples(self, step: int, text: str) -> None:
        """Keep samples; errors as above."""

    def close(self) -> None:
        """Nothing more will come."""
