"""Perplexity and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpt2.checks import check_choice
from gpt2.evaluation.texts import ScoredText
from gpt2.evaluation.windows import WindowSettings

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

UNITS = ("token", "word", "byte")


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        tokens: predicted tokens.
        words, bytes: of the original text; see `ScoredText`.
        nll: summed negative log-likelihood of the predicted tokens, in nats.
    """

    tokens: int
    words: int
    bytes: int
    nll: float

    def per(self, unit: str) -> float:
        """Return the perplexity per unit, one of `UNITS`: exp(nll / number of units)."""
        return exponential(self.nll, getattr(self, f"{unit}s"))

    @property
    def bits_per_byte(self) -> float:
        """Return bits per byte, which is comparable across vocabularies."""
        return bits_per_byte(self.nll, self.bytes)

    def numbers(self) -> dict[str, float]:
        """Return all numbers by the names that they have in tables and files."""
        perplexities = {f"perplexity_per_{unit}": self.per(unit) for unit in UNITS}
        return asdict(self) | perplexities | {"bits_per_byte": self.bits_per_byte}


def measure(
    scorer: Scorer,
    texts: Iterable[ScoredText],
    cut: WindowSettings,
    progress: Callable[[int], object] = lambda tokens: None,
) -> Perplexity:
    """Return the perplexity of texts, each predicted on its own.

    The sums over all texts are divided, so that the result depends neither on the batch size nor
    on how the tokens are distributed over the texts' windows.

    Args:
        progress: called with the number of newly predicted tokens.
    """
    texts = list(texts)
    scores = scorer.score((text.tokens for text in texts), cut, progress)
    return Perplexity(
        tokens=sum(text.predicted for text in texts),
        words=sum(text.words for text in texts),
        bytes=sum(text.size for text in texts),
        nll=sum(float(each.nats.sum(dtype="float64")) for each in scores),
    )


def check_unit(unit: str) -> str:
    """Return the unit, if it is one of `UNITS`.

    Raises:
        UserError: it is not.
    """
    check_choice("normalize", unit, UNITS)
    return unit


def exponential(nats: float, units: int) -> float:
    """Return exp(nats / units); infinity if that overflows or there are no units.

    Example:
        >>> exponential(3 * math.log(8), 3)
        8.0
    """
    try:
        return math.exp(nats / units)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def bits_per_byte(nats: float, size: int) -> float:
    """Return the bits per byte of a text of `size` bytes; infinity if it is empty.

    Example:
        >>> bits_per_byte(8 * math.log(2), 4)
        2.0
    """
    return nats / math.log(2) / size if size else math.inf
