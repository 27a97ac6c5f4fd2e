"""What a run knows of its past, beyond the weights and the optimizer's state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gpt2.errors import UserError, quoted

MEMORY = 0.99  # weight of the losses so far against the next one, as in 2019
PARTING = 0.05  # nats above its best from which a validation loss has turned, not wavered


@dataclasses.dataclass
class TrainingProgress:
    """The losses so far; saved beside each checkpoint, so that a run goes on with them."""

    seed: int  # of everything random in the run
    loss_sum: float = 0.0  # of the losses so far, each counting MEMORY of the next
    loss_weight: float = 0.0
    validated: int | None = None  # step of the last validation
    validated_on: int | None = None  # checksum of the batches that the best is of
    best_step: int | None = None  # of the lowest validation loss
    best_loss: float = math.inf  # nats
    best_average: float = math.inf  # of the training losses by then
    misses: int = 0  # validations since the best

    def facts(self) -> dict[str, Any]:
        """The fields as JSON can hold them: None for a loss that there is none of yet."""
        return {n: None if v == math.inf else v for n, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> TrainingProgress:
        """Undo `facts`.

        Raises:
            UserError: they are something else.
        """
        progress = cls(0)
        for name, begin in dataclasses.asdict(progress).items():
            value = facts.get(name)
            if value is None and begin in (None, math.inf):
                continue
            if type(value) is not int and not (type(value) is type(begin) is float):
                raise UserError(f"{name} is {quoted(value)} where a number should be.")
            setattr(progress, name, value)
        return progress

    @property
    def average(self) -> float:
        """Of the training losses so far."""
        return self.loss_sum / self.loss_weight if self.loss_weight else math.inf

    def add_loss(self, loss: float) -> None:
        """Take in the training loss of a step."""
        self.loss_sum = MEMORY * self.loss_sum + loss
        self.loss_weight = MEMORY * self.loss_weight + 1

    def set_best(self, step: int, loss: float) -> None:
        """Take in the validation loss of a step that is lower than all before."""
        self.best_step, self.best_loss, self.best_average = step, loss, self.average
        self.misses = 0

    def validate_on(self, checksum: int) -> bool:
        """Say on which batches is validated from now on; whether a best of others is forgotten."""
        other = self.validated_on not in (None, checksum)
        if other:
            self.validated = self.best_step = None
            self.best_loss = self.best_average = math.inf
            self.misses = 0
        self.validated_on = checksum
        return other

    def parts(self, loss: float) -> bool:
        """Whether the validation loss has risen while the training loss went on falling."""
        return loss > self.best_loss + PARTING and self.average < self.best_average
