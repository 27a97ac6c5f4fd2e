"""What a model expects at each place of a text, before and after the rules of sampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings, distribution


@dataclasses.dataclass(frozen=True)
class TokenDistribution:
    """The probabilities of the next token at one place of a text."""

    context: tuple[int, ...]  # the tokens before
    token: int | None  # the one that came; None behind the last
    before: np.ndarray  # the model's own probabilities, float64 [V]
    after: np.ndarray  # those that a token is drawn with, float64 [V]

    def likeliest(self, count: int) -> np.ndarray:
        """The ids of the tokens that the model expects most, the likeliest first."""
        return np.argsort(-self.before, kind="stable")[:count]

    def rank(self, token: int) -> int:
        """The place of a token among all, 1 for the likeliest."""
        return int((self.before > self.before[token]).sum()) + 1


def next_tokens(
    model: LanguageModel, tokens: Sequence[int], settings: SamplingSettings, last: int
) -> Iterator[TokenDistribution]:
    """The last steps through a text: to each of its last tokens, and on from its end.

    As in writing, a text begins after `<|endoftext|>`, and of a long one the model sees what its
    window holds.

    Args:
        last: how many steps at most.
    """
    for place in range(max(0, len(tokens) + 1 - last), len(tokens) + 1):
        context = tuple(tokens[:place])
        logits = model.logits((context or (model.start_token,))[-model.hparams.n_ctx :])
        yield TokenDistribution(
            context,
            tokens[place] if place < len(tokens) else None,
            probabilities(logits, SamplingSettings()),
            probabilities(logits, settings),
        )


def probabilities(logits: np.ndarray, settings: SamplingSettings) -> np.ndarray:
    """With what probability each token is drawn: float32 [V] -> float64 [V].

    Of the settings, those count that do not look at the text before.
    """
    found = np.zeros(len(logits))
    if settings.temperature == 0:
        found[logits.argmax()] = 1
    else:
        ids, shares = distribution(logits, settings)
        found[ids] = shares
    return found
