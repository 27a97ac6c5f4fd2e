"""From the scores of the next token to the token: one implementation for every engine."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gpt2.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; the defaults draw from the model's own distribution."""

    temperature: float = 1.0  # divides the scores; 0 always takes the likeliest token
    top_k: int = 0  # draw among the k likeliest; 0 is off
    top_p: float = 0.0  # draw among the fewest likeliest that reach probability p; 0 and 1 are off

    def __post_init__(self) -> None:
        if not is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise UserError(
                f"The temperature should be a number of at least 0, not {self.temperature!r}."
            )
        check_count("top_k", self.top_k, least=0)
        if not is_number(self.top_p) or not 0 <= self.top_p <= 1:
            raise UserError(f"top_p should be a number from 0 to 1, not {self.top_p!r}.")

    def check_vocabulary(self, n_vocab: int) -> None:
        """Hold top_k against the size of the vocabulary.

        Raises:
            UserError: it asks for more tokens than there are.
        """
        if self.top_k > n_vocab:
            raise UserError(
                f"top_k is {self.top_k}, but the vocabulary has only {n_vocab} tokens; "
                "0 takes them all."
            )


def check_count(name: str, value: object, least: int) -> None:
    """Hold a number of things against the least there can be.

    Raises:
        UserError: it is not a whole number of at least `least`.
    """
    if type(value) is not int or value < least:
        raise UserError(f"{name} should be a whole number of at least {least}, not {value!r}.")


def is_number(value: object) -> bool:
    """Whether a value is an int or a float (and not a bool, which Python counts among them)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def choose(logits: np.ndarray, settings: SamplingSettings, uniform: float) -> int:
    """The next token.

    Args:
        logits: scores of each token, float32 [V].
        uniform: the random number that decides, from 0 up to but not including 1.

    Returns:
        The id of the token.
    """
    if settings.temperature == 0:
        return int(logits.argmax())
    tokens, probabilities = distribution(logits, settings)
    cumulative = np.cumsum(probabilities)
    at = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return int(tokens[min(at, len(tokens) - 1)])


def distribution(logits: np.ndarray, settings: SamplingSettings) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may come next and their probabilities, at a temperature above 0.

    top_k is applied first and top_p to what it leaves, with probabilities made to sum to one in
    between, as in Hugging Face's `generate`.

    Returns:
        ids, int64 [n], in rising order, and probabilities, float64 [n]. The order matters for what
        a random number draws: as found by a partition, it would hang on the scores of others.
    """
    tokens = np.arange(len(logits))
    if 0 < settings.top_k < len(logits):
        tokens = np.sort(np.argpartition(logits, -settings.top_k)[-settings.top_k :])
    scores = logits[tokens].astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature: minus infinity, so probability 0
        probabilities = np.exp((scores - scores.max()) / settings.temperature)
    probabilities /= probabilities.sum()
    if 0 < settings.top_p < 1:
        kept = np.sort(nucleus(probabilities, settings.top_p))
        tokens, probabilities = tokens[kept], probabilities[kept]
        probabilities /= probabilities.sum()
    return tokens, probabilities


def nucleus(probabilities: np.ndarray, p: float) -> np.ndarray:
    """Indices of the smallest set of most probable tokens whose sum reaches p, likeliest first.

    Holtzman et al. 2020, section 3.1. Only as many tokens are sorted as are needed, since the
    whole vocabulary would take longer than all else together.
    """
    size = 64
    while True:
        size = min(size, len(probabilities))
        likeliest = np.argpartition(probabilities, -size)[-size:]
        order = likeliest[np.argsort(-probabilities[likeliest], kind="stable")]
        cumulative = np.cumsum(probabilities[order])
        if cumulative[-1] >= p or size == len(probabilities):
            return order[: int(np.searchsorted(cumulative, p)) + 1]
        size *= 8
