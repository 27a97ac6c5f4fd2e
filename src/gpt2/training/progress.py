"""The progress of a run beyond the weights and the optimizer state: losses and the best step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gpt2.errors import UserError, quoted

DECAY = 0.99  # of the moving average of the losses, as in 2019
# Nats above the best validation loss that count as overfitting, and not as noise.
OVERFITTING = 0.05


@dataclasses.dataclass
class TrainingProgress:
    """The losses of a run so far, saved beside each checkpoint for an exact resume."""

    seed: int  # of everything random in the run
    loss_sum: float = 0.0  # of the training losses, decayed
    loss_weight: float = 0.0  # of the decay factors in that sum
    validated: int | None = None  # step of the last validation
    validated_on: int | None = None  # checksum of the validation batches
    best_step: int | None = None  # step of the lowest validation loss
    best_loss: float = math.inf  # nats
    best_average: float = math.inf  # average training loss at that step
    misses: int = 0  # validations since the best

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON, which has no infinity: None for a loss not yet known."""
        return {n: None if v == math.inf else v for n, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> TrainingProgress:
        """Return the progress that `facts` described.

        Raises:
            UserError: a value is missing or is not a number.
        """
        progress = cls(0)
        for name, default in dataclasses.asdict(progress).items():
            value = facts.get(name)
            if value is None and default in (None, math.inf):
                continue
            if type(value) is not int and not (type(value) is type(default) is float):
                raise UserError(f"Field {name!r} is {quoted(value)}; expected a number.")
            setattr(progress, name, value)
        return progress

    @property
    def average(self) -> float:
        """The exponential moving average of the training losses."""
        return self.loss_sum / self.loss_weight if self.loss_weight else math.inf

    def add_loss(self, loss: float) -> None:
        """Add the training loss of a step."""
        self.loss_sum = DECAY * self.loss_sum + loss
        self.loss_weight = DECAY * self.loss_weight + 1

    def set_best(self, step: int, loss: float) -> None:
        """Record a new lowest validation loss."""
        self.best_step, self.best_loss, self.best_average = step, loss, self.average
        self.misses = 0

    def validate_on(self, checksum: int) -> bool:
        """Record the validation batches; return True if the best of other batches was dropped."""
        changed = self.validated_on not in (None, checksum)
        if changed:
            self.validated = self.best_step = None
            self.best_loss = self.best_average = math.inf
            self.misses = 0
        self.validated_on = checksum
        return changed

    def overfits(self, loss: float) -> bool:
        """Return whether a validation loss is above the best and the training loss still falls."""
        return loss > self.best_loss + OVERFITTING and self.average < self.best_average
