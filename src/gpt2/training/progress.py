"""The progress of a run beyond the weights and the optimizer state: losses and the best step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gpt2.errors import UserError, quoted

DECAY = 0.99  # of the moving average of the losses, as in 2019
RECENT = 0.9  # of the average that shows whether the training loss falls now
# Nats above the best validation loss that count as overfitting, and not as noise.
OVERFITTING = 0.05


# Fields that states of older versions lack.
_ADDED = ("recent_sum", "recent_weight", "validated_recent", "examples", "tokens")


@dataclasses.dataclass
class TrainingProgress:
    """The losses of a run so far, saved beside each checkpoint for an exact resume."""

    seed: int  # of everything random in the run
    loss_sum: float = 0.0  # of the training losses, decayed
    loss_weight: float = 0.0  # of the decay factors in that sum
    validated: int | None = None  # step of the last validation
    validated_on: int | None = None  # fingerprint of the validation set
    best_step: int | None = None  # step of the lowest validation loss
    best_loss: float = math.inf  # nats
    best_average: float = math.inf  # recent training loss at that step
    misses: int = 0  # validations since the best
    recent_sum: float = 0.0  # as loss_sum and loss_weight, of the most recent losses
    recent_weight: float = 0.0
    validated_recent: float = math.inf  # recent training loss at the last validation
    examples: int | None = None  # seen in training, by all calls; None if unknown
    tokens: int | None = None  # targets among them
    packing: bool | None = None  # whether examples are packed; None: saved by an earlier version

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
            if value is None and (default in (None, math.inf) or name in _ADDED):
                continue
            expected = bool if name == "packing" else int
            is_float = type(value) is type(default) is float and math.isfinite(value)
            if type(value) is not expected and not is_float:
                kind = "a number" if expected is int else "true or false"
                raise UserError(f"Field {name!r} is {quoted(value)}; expected {kind}.")
            setattr(progress, name, value)
        return progress

    @property
    def average(self) -> float:
        """The exponential moving average of the training losses."""
        return self.loss_sum / self.loss_weight if self.loss_weight else math.inf

    @property
    def recent(self) -> float:
        """The average of about the last ten training losses."""
        return self.recent_sum / self.recent_weight if self.recent_weight else math.inf

    def add_loss(self, loss: float, examples: int = 0, tokens: int = 0) -> None:
        """Add a step: its training loss, and the examples and targets that it has seen."""
        self.loss_sum = DECAY * self.loss_sum + loss
        self.loss_weight = DECAY * self.loss_weight + 1
        self.recent_sum = RECENT * self.recent_sum + loss
        self.recent_weight = RECENT * self.recent_weight + 1
        if self.examples is not None:
            self.examples += examples
        if self.tokens is not None:
            self.tokens += tokens

    def set_best(self, step: int, loss: float) -> None:
        """Record a new lowest validation loss."""
        self.best_step, self.best_loss, self.best_average = step, loss, self.recent
        self.misses = 0

    def validate_on(self, fingerprint: int) -> bool:
        """Record the validation set; return True if the best of another set was dropped."""
        changed = self.validated_on not in (None, fingerprint)
        if changed:
            self.validated = self.best_step = None
            self.best_loss = self.best_average = math.inf
            self.misses = 0
        self.validated_on = fingerprint
        return changed

    def overfits(self, loss: float) -> bool:
        """Return whether a validation loss is above the best while the training loss falls.

        It falls if it is below that of the best step and not above that of the last validation.
        """
        falls = self.recent < self.best_average and self.recent <= self.validated_recent
        return falls and loss > self.best_loss + OVERFITTING
