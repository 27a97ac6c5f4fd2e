"""Nats spent on a text, per whatever they are to be compared by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpt2.errors import UserError
from gpt2.evaluation.texts import ScoredText
from gpt2.evaluation.windows import WindowSettings

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

UNITS = ("token", "word", "byte")


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        tokens: that were predicted.
        words, bytes: of the original text.
        nll: the summed nats of all predicted tokens (negative log-likelihood).
    """

    tokens: int
    words: int
    bytes: int
    nll: float

    def per(self, unit: str) -> float:
        """Perplexity of one of `UNITS`: exp(nll / how many there are)."""
        return exponential(self.nll, getattr(self, f"{unit}s"))

    @property
    def bits_per_byte(self) -> float:
        """Comparable across vocabularies."""
        return bits_per_byte(self.nll, self.bytes)

    def numbers(self) -> dict[str, float]:
        """All of it, by the names that it has in tables and files."""
        perplexities = {f"perplexity_per_{unit}": self.per(unit) for unit in UNITS}
        return asdict(self) | perplexities | {"bits_per_byte": self.bits_per_byte}


def measure(
    scorer: Scorer,
    texts: Iterable[ScoredText],
    cut: WindowSettings,
    progress: Callable[[int], object] = lambda tokens: None,
) -> Perplexity:
    """The perplexity of texts, each predicted by itself."""
    texts = list(texts)
    scores = scorer.score((text.tokens for text in texts), cut, progress)
    return Perplexity(
        tokens=sum(text.predicted for text in texts),
        words=sum(text.words for text in texts),
        bytes=sum(text.size for text in texts),
        nll=sum(float(each.nats.sum(dtype="float64")) for each in scores),
    )


def check_unit(unit: str) -> str:
    """The unit itself, if it is one.

    Raises:
        UserError: it is none of `UNITS`.
    """
    if unit not in UNITS:
        raise UserError(f"normalize should be one of {', '.join(UNITS)}, not {unit!r}.")
    return unit


def exponential(nats: float, units: int) -> float:
    """exp(nats / units); infinite where that is too large for a number, or there are no units."""
    try:
        return math.exp(nats / units)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def bits_per_byte(nats: float, size: int) -> float:
    """Nats spent on a text of `size` bytes, as bits per byte: comparable across vocabularies."""
    return nats / math.log(2) / size if size else math.inf
