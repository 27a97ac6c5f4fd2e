"""The probability distribution of the next token at places of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings, distribution


@dataclasses.dataclass(frozen=True)
class TokenDistribution:
    """The distribution of the next token at one place of a text."""

    context: tuple[int, ...]  # ids of the tokens before
    token: int | None  # id of the token that follows; None at the end of the text
    before: np.ndarray  # probabilities of the model, float64 [V]
    after: np.ndarray  # probabilities after temperature and truncation, float64 [V]

    def likeliest(self, count: int) -> np.ndarray:
        """Return the ids of the most probable tokens, in descending order of probability."""
        return np.argsort(-self.before, kind="stable")[:count]

    def rank(self, token: int) -> int:
        """Return the rank of a token by probability, 1 for the most probable."""
        return int((self.before > self.before[token]).sum()) + 1


def next_tokens(
    model: LanguageModel, tokens: Sequence[int], settings: SamplingSettings, last: int
) -> Iterator[TokenDistribution]:
    """Yield the distributions at the last tokens of a text and at its end.

    The first token follows `<|endoftext|>`. The context is at most the last n_ctx tokens.

    Args:
        tokens: ids [T].
        settings: see `probabilities`.
        last: maximum number of distributions.
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
    """Return the probability of each token to be sampled: float32 [V] -> float64 [V].

    Args:
        settings: temperature and truncation are applied; penalties, which depend on the text, are
            not.
    """
    found = np.zeros(len(logits))
    if settings.temperature == 0:
        found[logits.argmax()] = 1
    else:
        ids, shares = distribution(logits, settings)
        found[ids] = shares
    return found
