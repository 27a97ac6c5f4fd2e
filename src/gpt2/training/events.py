"""What happens in a training; the loop yields these, whoever calls it shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class StepFinished:
    """A step has been done."""

    step: int
    seconds: float  # since the loop began
    loss: float  # nats
    average: float  # of the losses so far, each step weighing 0.99 of the next
    tokens_per_second: float = 0.0


@dataclasses.dataclass(frozen=True)
class Validating:
    """The loss on the validation batches is about to be computed."""


@dataclasses.dataclass(frozen=True)
class Validated:
    """The loss on the validation batches, in nats."""

    step: int
    seconds: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Saving:
    """A checkpoint is about to be written under this prefix."""

    prefix: Path


@dataclasses.dataclass(frozen=True)
class Generating:
    """Samples are about to be generated."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples have been generated, and written to a file if that was possible."""

    text: str  # with a banner above each
    path: Path


@dataclasses.dataclass(frozen=True)
class Warned:
    """Something is not as it should be; training goes on."""

    sentence: str


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """The loop was asked to stop; it saves and ends."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The run has come to its end."""

    step: int
    reason: str  # a sentence


Event = (
    StepFinished
    | Validating
    | Validated
    | Saving
    | Generating
    | Sampled
    | Warned
    | Interrupted
    | Finished
)
