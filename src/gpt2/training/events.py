"""Events of a training. The loop yields them, and the caller prints them."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class StepFinished:
    """A step is done."""

    step: int
    seconds: float  # since the loop started
    loss: float  # nats
    average: float  # exponential moving average of the losses, decay 0.99
    tokens_per_second: float = 0.0


@dataclasses.dataclass(frozen=True)
class Validating:
    """A validation starts."""


@dataclasses.dataclass(frozen=True)
class Validated:
    """A validation is done."""

    step: int
    seconds: float  # since the loop started
    loss: float  # nats, mean over all targets


@dataclasses.dataclass(frozen=True)
class Saving:
    """A checkpoint is about to be written at this prefix."""

    prefix: Path


@dataclasses.dataclass(frozen=True)
class Generating:
    """Samples are about to be generated."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples have been generated; they are written to a file next."""

    text: str  # with a banner above each sample
    path: Path


@dataclasses.dataclass(frozen=True)
class Warned:
    """Something went wrong; training continues."""

    sentence: str


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """The loop was asked to stop; it saves and returns."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The run is finished."""

    step: int
    reason: str  # the end reason, a sentence


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
